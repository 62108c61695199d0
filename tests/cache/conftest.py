import cache_bench

one_thread = cache_bench.one_thread
shards = cache_bench.shards
teacher = cache_bench.teacher
bench = cache_bench.bench
whole = cache_bench.whole
coded = cache_bench.coded
forwarded = cache_bench.forwarded
make_teacher = cache_bench.make_teacher
make_shards = cache_bench.make_shards
