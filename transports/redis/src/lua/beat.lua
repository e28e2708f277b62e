-- Says that an instance of a service runs. KEYS: live, list. ARGV: ms that this holds, ms that the list holds.
-- Only the first time needs memory.
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2], 'GT')
