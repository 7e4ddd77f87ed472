-- What a snapshot's memory goes on in, and how much room it takes; none where it has no memory.
ALTER TABLE snapshots ADD COLUMN memory_of TEXT;
