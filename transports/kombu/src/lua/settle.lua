-- Ends a delivery. KEYS: unacked, its index, what the process holds, then what the verdict needs. ARGV: tag, verdict, then
-- what that needs. Answers 1; 0 when the message is not the consumer's any more: then nothing is stored.
local verdict = ARGV[2]
if verdict ~= 'ack' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('HDEL', KEYS[3], ARGV[1])
  return 0
end
if verdict == 'retry' then
  -- KEYS: times, messages. ARGV: delay in ms, message.
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[5], ARGV[1], ARGV[4])
  redis.call('ZADD', KEYS[4], time[1] * 1000 + math.ceil(time[2] / 1000) + ARGV[3], ARGV[1])
elseif verdict == 'dead' then
  -- KEYS: dead letters, dead places. ARGV: message, origin.
  redis.call('LPUSH', KEYS[4], ARGV[3])
  redis.call('SADD', KEYS[5], ARGV[4])
elseif verdict == 'redrive' then
  -- KEYS: list, durable subscriptions. ARGV: message, most, name of a durable subscription or ''.
  if ARGV[5] ~= '' and redis.call('HEXISTS', KEYS[5], ARGV[5]) == 0 then
    return -2
  end
  if redis.call('LLEN', KEYS[4]) >= tonumber(ARGV[4]) then
    return -1
  end
  redis.call('LPUSH', KEYS[4], ARGV[3])
elseif verdict == 'back' then
  -- KEYS: list. ARGV: message.
  redis.call('RPUSH', KEYS[4], ARGV[3])
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
