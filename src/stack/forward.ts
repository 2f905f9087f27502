import { engineFiles } from '../engine/qemu/argv.ts'
import { Qmp } from '../engine/qemu/qmp.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { forwardedAddresses } from './address.ts'
import type { Context } from './context.ts'
import type { Host } from './host.ts'
import type { GuestRecord } from './record.ts'

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

/** Leads to a guest that lies behind the next hypervisor; its own parent has a route by its tap device. */
export async function routeThrough(
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

/** Bounded by its own limit, so that cleaning up goes on after Ctrl-C. */
async function openQmp(context: Context, base: GuestRecord): Promise<Qmp> {
  const socket = engineFiles(base.engineDir, base.socketDir).qmpSocket
  const { machine } = await context.hostNamed(base.host)
  const stream = await machine.connect({ unix: socket }, AbortSignal.timeout(30_000))
  const timer = setTimeout(() => stream.destroy(), 30_000)
  stream.once('close', () => clearTimeout(timer))
  return Qmp.open(stream)
}
