-- Says that an instance of a service runs. KEYS: live, list. ARGV: ms that this holds, ms that the list holds.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return redis.call('PEXPIRE', KEYS[2], ARGV[2], 'GT')
