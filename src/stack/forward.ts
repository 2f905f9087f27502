import { engineFiles } from '../engine/qemu/argv.ts'
import { Qmp } from '../engine/qemu/qmp.ts'
import { timeLimit } from '../machine/limit.ts'
import { run } from '../machine/run.ts'
import { hostEnd, notPublished, type PublishedPort } from '../network/ports.ts'
import { NestvmError } from '../store/error.ts'
import { forwardedAddresses } from './address.ts'
import type { Context } from './context.ts'
import type { Host } from './host.ts'
import { engineMachine } from './output.ts'
import { answerLimitMs } from './plan.ts'
import type { GuestRecord } from './record.ts'
import { endRelay, startRelay } from './relay.ts'

/** The addresses that a level 1 guest's QEMU forwards to already: of its guests, and of earlier ones. */
export async function forwarded(host: Host, base: string): Promise<string[]> {
  const { stdout } = await run(host.machine, ['ls', host.socketDir(base)], { timeoutMs: 30_000, allowFailure: true })
  return forwardedAddresses(stdout.split('\n'))
}

/** Opens a guest's ssh server to the host: a unix socket that the level 1 guest's QEMU forwards to it. */
export async function forwardSsh(context: Context, base: GuestRecord, guest: GuestRecord): Promise<void> {
  await using qmp = await openQmp(context, base)
  const answer = await qmp.human(`hostfwd_add net unix:${guest.sshSocket}-${guest.address}:22`)
  if (answer.trim() !== '') throw new NestvmError('QMP_ERROR', `QEMU cannot forward to ${guest.path}: ${answer.trim()}`)
}

/** Opens the guest's published ports on the host. Throws `PORT_TAKEN`. */
export async function publishPorts(context: Context, base: GuestRecord, guest: GuestRecord): Promise<void> {
  if (guest.ports.length === 0) return
  for (const { relay, guestPort } of guest.ports) {
    if (relay !== undefined) await startRelay(context, base, relay, { address: guest.address, port: guestPort })
  }
  await using qmp = await openQmp(context, base)
  for (const port of guest.ports) {
    const answer = await qmp.human(`hostfwd_add net ${hostEnd(port)}-${guestEnd(base, guest, port)}`)
    if (answer.trim() !== '') throw notPublished(port, 'PORT_TAKEN', new Error(answer.trim()))
  }
}

export async function unpublishPorts(context: Context, base: GuestRecord, guest: GuestRecord): Promise<void> {
  if (guest.ports.length === 0) return
  await using qmp = await openQmp(context, base)
  for (const port of guest.ports) await qmp.human(`hostfwd_remove net ${hostEnd(port)}`)
  for (const { relay } of guest.ports) if (relay !== undefined) await endRelay(context, base, relay)
}

function guestEnd(base: GuestRecord, guest: GuestRecord, { relay, guestPort }: PublishedPort): string {
  return relay === undefined ? `${guest.address}:${guestPort}` : `${base.address}:${relay}`
}

/**
 * Keeps a nested guest off the way out that its level 1 guest has, or lets it out again. The level 1 guest's packet
 * filter is set up soon after its start.
 */
export async function setInside(
  context: Context,
  base: GuestRecord,
  address: string,
  inside: boolean,
  nft: readonly string[],
): Promise<void> {
  if (base.network === 'none') return
  const machine = await context.guest(base)
  const script = `address=$1 inside=$2; shift 2
n=0; until "$@" list set ip nestvm inside > /dev/null 2>&1; do
  n=$((n + 1)); [ $n -lt 300 ] || exit 1; usleep 100000
done
if [ $inside = true ]; then "$@" add element ip nestvm inside "{ $address }"
else "$@" delete element ip nestvm inside "{ $address }" 2> /dev/null || true; fi`
  await run(machine, ['sh', '-c', script, 'sh', address, String(inside), ...nft], {
    timeoutMs: answerLimitMs(base.level),
    signal: context.signal,
  })
}

/** Leads to a guest that lies behind the next hypervisor; its own parent has a route by its tap device. */
async function routeThrough(
  context: Context,
  hypervisor: GuestRecord,
  address: string,
  next: GuestRecord,
): Promise<void> {
  const machine = await context.guest(hypervisor)
  await run(machine, ['ip', 'route', 'replace', `${address}/32`, 'via', next.address, 'dev', `${next.tap}`], {
    timeoutMs: 60_000,
    signal: context.signal,
  })
}

/** The same through each of a chain of hypervisors, outermost first; the last one has a route by its tap device. */
export function routesThrough(context: Context, way: readonly GuestRecord[], address: string): Promise<void>[] {
  return way.slice(0, -1).map(async (hypervisor, index) => {
    const next = way[index + 1]
    if (next) await routeThrough(context, hypervisor, address, next)
  })
}

export async function unrouteThrough(
  context: Context,
  hypervisor: GuestRecord,
  guests: readonly GuestRecord[],
): Promise<void> {
  const machine = await context.guest(hypervisor)
  const script = 'for address; do ip route del "$address/32"; done'
  const argv = ['sh', '-c', script, 'sh', ...guests.map(({ address }) => address)]
  await run(machine, argv, { timeoutMs: 60_000, allowFailure: true })
}

/** To a guest's engine, where that runs. Bounded by its own limits, so that cleaning up goes on after Ctrl-C. */
export async function openQmp(
  context: Context,
  guest: GuestRecord,
  { wholeMs = 30_000, answerMs }: { wholeMs?: number; answerMs?: number } = {},
): Promise<Qmp> {
  const socket = engineFiles(guest.engineDir, guest.socketDir).qmpSocket
  const machine = await engineMachine(context, guest)
  const stream = await machine.connect({ unix: socket }, timeLimit(30_000))
  const timer = setTimeout(() => stream.destroy(), wholeMs)
  stream.once('close', () => clearTimeout(timer))
  return Qmp.open(stream, answerMs)
}
