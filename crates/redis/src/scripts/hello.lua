-- Opens a session: makes the log if there is none, and begins a term if this server is not the
-- one that gave the newest numbers, or does not know them.
-- KEYS meta, log, snapshot
-- ARGV run, known, '1' with a memory, and of the memory: identity, terms, applied,
--      then for each writer its field in meta and 'n:first'
local known = tonumber(ARGV[2])
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number)
  return string.format('%.0f', number)
end

-- As Term::first_at: a term begins at the microsecond, so beyond all that earlier ones gave,
-- known or not.
local function first_of_term(least)
  local first = (ms - 1767225600000) * 1024 + math.floor(clock[2] % 1000 * 1024 / 1000)
  if first > least then return first end
  return least + 16777216
end

local function welcome(identity, terms, next)
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  return {'ok', identity, terms, next, oldest and oldest[1] or '', text(ms)}
end

local meta = redis.call('HMGET', KEYS[1], 'format', 'identity', 'next', 'run', 'terms')
local format, identity, next, run, terms = meta[1], meta[2], meta[3], meta[4], meta[5]

if not format then
  if ARGV[3] ~= '1' then return {'empty'} end
  -- What is left of a log whose meta is gone has nothing to do with this one.
  redis.call('UNLINK', KEYS[2], KEYS[3])
  local first = text(first_of_term(known + 1))
  terms = ARGV[6] .. ':' .. first
  if ARGV[5] ~= '' then terms = ARGV[5] .. ';' .. terms end
  redis.call('HSET', KEYS[1], 'format', '1', 'identity', ARGV[4], 'next', first, 'run', ARGV[1],
    'terms', terms)
  for at = 7, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
  return welcome(ARGV[4], terms, first)
end
if format ~= '1' then return {'format', format} end
if run == ARGV[1] and known < tonumber(next) then return welcome(identity, terms, next) end

local first = text(first_of_term(math.max(tonumber(next), known + 1)))
terms = terms .. ';' .. text(next - 1) .. ':' .. first
local _, count = string.gsub(terms, ';', '')
while count > 63 do
  terms = string.gsub(terms, '^[^;]*;', '', 1)
  count = count - 1
end
redis.call('HSET', KEYS[1], 'next', first, 'run', ARGV[1], 'terms', terms)
return welcome(identity, terms, first)
