-- Puts a message aside in place of an entry. KEYS: stream, delayed, bodies. ARGV: group, consumer, id, delay in ms,
-- message. Answers 0 and stores nothing when the entry is not the consumer's any more.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #held == 0 then
  return 0
end
-- What may fail for want of memory comes first: the entry is let go of only after.
local time = redis.call('TIME')
redis.call('HSET', KEYS[3], ARGV[3], ARGV[5])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.ceil(time[2] / 1000) + ARGV[4], ARGV[3])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
