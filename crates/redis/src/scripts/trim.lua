-- Removes blocks before a number. The newest of them may go beyond it, and stays.
-- KEYS log · ARGV the newest id that may go
local kept = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', 1)[1]
if not kept then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', kept[1])
