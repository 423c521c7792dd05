"""What Redis does in one step, in Lua.

A generation lives as long as the longest entry that depends on it: `READ` creates it for the time of a load, `STORE`
extends it to that of the entry. An epoch begins with the run id of the server on which it was created.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a namespace."""

    namespace: str

    def entry(self, key: str) -> str:
        return f"{self.namespace}:entry:{key}"

    def generations(self, names: Iterable[str]) -> list[str]:
        """The epoch, and the generations of the names."""
        return [f"{self.namespace}:epoch", *[f"{self.namespace}:generation:{name}" for name in names]]


# KEYS: the entry, the epoch, the generations. ARGV: a new token, the run id, milliseconds for a load.
# Returns the entry, the milliseconds that it has left, and the tokens of the others, created where they are missing.
_EPOCH = """
local function current_epoch(key)
    local epoch = redis.call('GET', key)
    if epoch and string.sub(epoch, 1, #ARGV[2]) ~= ARGV[2] then epoch = false end
    return epoch
end
local function kept(key, value, created)
    if not value then
        redis.call('SET', key, created, 'PX', ARGV[3])
        return created
    end
    if redis.call('PTTL', key) < tonumber(ARGV[3]) then redis.call('PEXPIRE', key, ARGV[3]) end
    return value
end
"""
READ = f"""{_EPOCH}
local found = redis.call('MGET', unpack(KEYS))
found[2] = kept(KEYS[2], current_epoch(KEYS[2]), ARGV[2] .. ARGV[1])
for place = 3, #KEYS do found[place] = kept(KEYS[place], found[place], ARGV[1]) end
table.insert(found, 2, redis.call('PTTL', KEYS[1]))
return found
"""
KEEP_EPOCH = f"""{_EPOCH}
return kept(KEYS[1], current_epoch(KEYS[1]), ARGV[2] .. ARGV[1])
"""
# KEYS: as for READ. ARGV: the packed entry, its milliseconds, the tokens from before the load, which must be current.
STORE = """
for place = 2, #KEYS do
    if redis.call('GET', KEYS[place]) ~= ARGV[place + 1] then return 0 end
end
for place = 2, #KEYS do
    if redis.call('PTTL', KEYS[place]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[place], ARGV[2]) end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# KEYS: the epoch, the generations. ARGV: whether to publish without an epoch, the channel, the message.
# Deleted and published in one step, so that messages arrive in the order of the deletions. Safe to repeat.
INVALIDATE = """
if ARGV[1] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for place = 2, #KEYS do redis.call('DEL', KEYS[place]) end
return redis.call('PUBLISH', ARGV[2], ARGV[3])
"""
INVALIDATE_ALL = """
redis.call('DEL', KEYS[1])
return redis.call('PUBLISH', ARGV[2], ARGV[3])
"""
