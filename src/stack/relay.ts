import { run } from '../machine/run.ts'
import type { PublishedPort } from '../network/ports.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { answerLimitMs } from './plan.ts'
import type { GuestRecord } from './record.ts'

/*
 * A relay ends TCP at the level 1 guest. QEMU's user network acknowledges each 1,448 bytes by themselves, and each
 * acknowledgement that a deep guest gets costs VM exits at every level, while the kernels between guests pass 64 KiB at
 * a time. It costs the level 1 guest's processor, which at level 2 is more than it saves, and it holds small packets
 * back (busybox's nc leaves Nagle's algorithm on), so ssh goes without.
 */

/** Whether connections to published TCP ports of a guest of this level are relayed. */
export function isRelayed(level: number): boolean {
  return level > 2
}

/** Starts a relay from a port of the level 1 guest, where it does not run already. It ends with that guest. */
export async function startRelay(
  context: Context,
  base: GuestRecord,
  port: number,
  to: { address: string; port: number },
): Promise<void> {
  const script = `file=/run/nestvm/relay-$1
if [ -e $file ]; then
  read pid to < $file
  [ "$to" = "$2 $3" ] && [ -d /proc/$pid ] && exit
  kill $pid
fi
setsid nc -ll -p $1 -e nc $2 $3 > /dev/null 2>&1 < /dev/null &
echo "$! $2 $3" > $file`
  await inBase(context, base, ['sh', '-c', script, 'sh', `${port}`, to.address, `${to.port}`])
}

/** Connections that it carries stay, unless they are to end, too. */
export async function endRelay(context: Context, base: GuestRecord, port: number, connections = false): Promise<void> {
  // It leads a session of its own.
  const whom = connections ? '-- -$pid' : '$pid'
  const script = `file=/run/nestvm/relay-$1; [ -e $file ] && read pid to < $file && kill ${whom}; rm -f $file`
  await inBase(context, base, ['sh', '-c', script, 'sh', `${port}`])
}

async function inBase(context: Context, base: GuestRecord, argv: readonly string[]): Promise<void> {
  await run(await context.guest(base), argv, { timeoutMs: answerLimitMs(base.level), signal: context.signal })
}

/**
 * Gives each published TCP port of a guest a port of its level 1 guest that no relative uses, above those that Linux
 * gives to outgoing connections. Throws `TOO_MANY_PORTS`.
 */
export function withRelays(
  ports: readonly PublishedPort[],
  relatives: readonly Pick<GuestRecord, 'ports'>[],
): PublishedPort[] {
  const taken = new Set(relatives.flatMap((other) => other.ports.map(({ relay }) => relay)))
  const free = Array.from({ length: lastRelay - firstRelay + 1 }, (_, index) => firstRelay + index).filter(
    (port) => !taken.has(port),
  )
  return ports.map((port) => {
    if (port.protocol === 'udp') return port
    const relay = free.shift()
    if (relay !== undefined) return { ...port, relay }
    throw new NestvmError('TOO_MANY_PORTS', 'guests in one level 1 guest publish too many ports', {
      hint: 'stop one of them (nestvm ls), or start another outermost guest',
    })
  })
}

const firstRelay = 61_000
const lastRelay = 65_535
