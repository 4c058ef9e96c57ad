-- Remove consumers without pending entries that have not read a queue for a while.
-- KEYS: inbox, trials, targeted   ARGV: that time in ms, the consumer to remove or '' for all
-- Not while an entry is pending: it would belong to no consumer, and no take-over would find it.
-- If the user may not list consumers (older ACL files) or a queue is gone, nothing is removed.
for i, stream in ipairs(KEYS) do
  local group = i == 1 and 'actors' or 'workers'
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  for _, flat in ipairs(consumers.err and {} or consumers) do
    local consumer = {}
    for j = 1, #flat, 2 do
      consumer[flat[j]] = flat[j + 1]
    end
    if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[1])
      and (ARGV[2] == '' or ARGV[2] == consumer.name) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
    end
  end
end
