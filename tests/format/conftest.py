import hashed_stores

shards = hashed_stores.shards
write_store_at = hashed_stores.write_store_at
recipe = hashed_stores.recipe
