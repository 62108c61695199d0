import hashed_stores

shards = hashed_stores.shards
store_of = hashed_stores.store_of
damaged = hashed_stores.damaged
write_shards_at = hashed_stores.write_shards_at
write_store_at = hashed_stores.write_store_at
recipe = hashed_stores.recipe
