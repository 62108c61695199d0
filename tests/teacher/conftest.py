import cache_bench

one_thread = cache_bench.one_thread
shards = cache_bench.shards
teacher = cache_bench.teacher
settings = cache_bench.settings
make_teacher = cache_bench.make_teacher
make_shards = cache_bench.make_shards
