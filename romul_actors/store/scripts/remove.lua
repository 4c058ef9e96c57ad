-- Remove an experiment and all its data, even if they are damaged.
-- KEYS: meta, then all other keys except those of slots
-- Returns 1; 0 if none of the keys existed.
local removed = 0
local said = redis.pcall('HGET', KEYS[1], 'slots')
local slots = type(said) == 'string' and tonumber(said) or 0
-- The number may be damaged, and some of the slots may be gone.
local i, missing = 0, 0
while missing == 0 or (i < slots and missing < 1000) do
  local n = redis.call('DEL', KEYS[1] .. ':slot:' .. i)
  i, missing, removed = i + 1, n == 1 and 0 or missing + 1, removed + n
end
-- The bells of workers that have a checkpoint in memory or are present; other bells expire.
local workers = redis.pcall('HKEYS', KEYS[1] .. ':workers')
workers = workers.err and {} or workers
local affinity = redis.pcall('HKEYS', KEYS[1] .. ':affinity')
for _, field in ipairs(affinity.err and {} or affinity) do
  if string.sub(field, 1, 2) == 'w ' then
    workers[#workers + 1] = string.sub(field, 3)
  end
end
for _, worker in ipairs(workers) do
  redis.call('DEL', KEYS[1] .. ':bell:' .. worker)
end
removed = removed + redis.call('DEL', unpack(KEYS))
return removed > 0 and 1 or 0
