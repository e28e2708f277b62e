-- A reply to an inbox. KEYS: list of missed replies. ARGV: channel, message, ms to keep it, most to keep.
if redis.call('PUBLISH', ARGV[1], ARGV[2]) > 0 then
  return 1
end
if redis.call('LLEN', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('RPUSH', KEYS[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 0
