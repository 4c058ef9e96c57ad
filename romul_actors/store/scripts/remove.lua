-- Remove an experiment and all its data.
-- KEYS: meta, then every key that is no slot's   Returns 1; 0 if there is no such experiment.
local slots = redis.call('HGET', KEYS[1], 'slots')
if not slots then
  return 0
end
for i = 0, tonumber(slots) - 1 do
  redis.call('DEL', KEYS[1] .. ':slot:' .. i)
end
for _, field in ipairs(redis.call('HGETALL', KEYS[1] .. ':affinity')) do
  if string.sub(field, 1, 2) == 'w ' then
    redis.call('DEL', KEYS[1] .. ':bell:' .. string.sub(field, 3))
  end
end
redis.call('DEL', unpack(KEYS))
return 1
