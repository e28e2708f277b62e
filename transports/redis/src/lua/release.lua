-- Gives entries back as if they had not been handed out. KEYS: stream. ARGV: group, consumer, channel, ids.
-- They wait at the consumer '-', idle beyond any lease, so that the next one to look takes them.
local given = 0
for i = 4, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #held > 0 then
    local times = math.max(held[1][4] - 1, 0)
    redis.call('XCLAIM', KEYS[1], ARGV[1], '-', 0, ARGV[i], 'IDLE', 86400000, 'RETRYCOUNT', times, 'JUSTID')
    given = given + 1
  end
end
if given > 0 then
  redis.call('PUBLISH', ARGV[3], KEYS[1])
end
return given
