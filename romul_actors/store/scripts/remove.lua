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
for part, before in pairs({workers = '', affinity = 'w '}) do
  -- With values, since an operator has no right to HKEYS.
  local fields = redis.pcall('HGETALL', KEYS[1] .. ':' .. part)
  for j = 1, fields.err and 0 or #fields, 2 do
    if string.sub(fields[j], 1, #before) == before then
      redis.call('DEL', KEYS[1] .. ':bell:' .. string.sub(fields[j], #before + 1))
    end
  end
end
removed = removed + redis.call('DEL', unpack(KEYS))
return removed > 0 and 1 or 0
