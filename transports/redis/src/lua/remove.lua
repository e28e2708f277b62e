-- Removes a durable subscription with what it holds. KEYS: stream, delayed, bodies, bindings, version, registry. ARGV:
-- group, name, ms for which nobody must have read it or '', channel of life without the id. Answers 1 when it did.
if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 0 and redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HDEL', KEYS[6], ARGV[2])
  return 0
end
local time = redis.call('TIME')
if ARGV[3] ~= '' then
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
  for _, info in ipairs(consumers.err and {} or consumers) do
    if info[2] ~= '-' and redis.call('PUBSUB', 'NUMSUB', ARGV[4] .. info[2])[2] > 0 then
      return 0
    end
  end
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local known = redis.call('HGET', KEYS[6], ARGV[2])
  local seen = known and tonumber(string.match(known, ' (%d+)$'))
  if not seen then
    -- Nobody has told yet: from now on it counts as idle.
    redis.call('HSET', KEYS[6], ARGV[2], ' ' .. string.format('%d', now))
    return 0
  end
  if now - seen < tonumber(ARGV[3]) then
    return 0
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('HDEL', KEYS[6], ARGV[2])
redis.call('SET', KEYS[5], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(ARGV[2]))
return 1
