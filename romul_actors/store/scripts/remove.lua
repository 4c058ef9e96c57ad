-- Remove an experiment with all it has.
-- KEYS: meta, then every fixed key   Returns 1; 0 if there is none.
local slots = redis.call('HGET', KEYS[1], 'slots')
if not slots then
  return 0
end
for i = 0, tonumber(slots) - 1 do
  redis.call('DEL', KEYS[1] .. ':slot:' .. i)
end
redis.call('DEL', unpack(KEYS))
return 1
