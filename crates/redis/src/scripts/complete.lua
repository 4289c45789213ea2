-- Makes a snapshot the newest one, unless there is a later one.
-- KEYS snapshot, its chunks, the chunks of the one before
-- ARGV at, writer and number of chunks, at and writer of the one before
local newest = redis.call('HMGET', KEYS[1], 'at', 'writer')
local at, writer = newest[1] or '', newest[2] or ''
if at == ARGV[1] and writer == ARGV[2] then return 'ok' end
if at ~= ARGV[4] or writer ~= ARGV[5] then return 'other' end
if at ~= '' and tonumber(at) >= tonumber(ARGV[1]) then
  redis.call('UNLINK', KEYS[2])
  return 'later'
end
if redis.call('HLEN', KEYS[2]) ~= tonumber(ARGV[3]) then return 'parts' end
redis.call('PERSIST', KEYS[2])
redis.call('HSET', KEYS[1], 'at', ARGV[1], 'writer', ARGV[2], 'chunks', ARGV[3])
if at ~= '' then redis.call('UNLINK', KEYS[3]) end
return 'ok'
