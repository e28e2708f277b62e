-- Puts a message among the dead letters in place of an entry. KEYS: stream, dead letters. ARGV: group, consumer, id,
-- message. Answers 0 and stores nothing when the entry is not the consumer's any more.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #held == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
