-- Appends a block, unless it is there.
-- KEYS log, meta
-- ARGV identity, run, the writer's field in meta, n, width, block
local meta = redis.call('HMGET', KEYS[2], 'identity', 'run', 'next', ARGV[3])
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return {'moved'} end
if meta[4] then
  local n, first = string.match(meta[4], '^(%d+):(%d+)$')
  if tonumber(n) >= tonumber(ARGV[4]) then
    -- Changes nothing, but is a write, so that WAIT waits for what was written before.
    redis.call('HSET', KEYS[2], ARGV[3], meta[4])
    return {'there', first}
  end
end
local clock = redis.call('TIME')
local now_us = clock[1] .. string.format('%06d', clock[2])
redis.call('XADD', KEYS[1], meta[3] .. '-0', 't', now_us, 'b', ARGV[6])
redis.call('HSET', KEYS[2], 'next', string.format('%.0f', meta[3] + ARGV[5]),
  ARGV[3], ARGV[4] .. ':' .. meta[3])
return {'ok', meta[3]}
