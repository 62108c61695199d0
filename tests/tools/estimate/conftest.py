import cache_bench

one_thread = cache_bench.one_thread
shards = cache_bench.shards
teacher = cache_bench.teacher
