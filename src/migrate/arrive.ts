import type { QemuDisk } from '../engine/qemu/argv.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import type { Context } from '../stack/context.ts'
import { qemuSpec } from '../stack/describe.ts'
import { diskFor, fromStart, isNothing, plug } from '../stack/disk.ts'
import { thisHost } from '../stack/host.ts'
import { launchIncoming, launchIncomingOnHost } from '../stack/launch.ts'
import { leadOutside } from '../stack/network.ts'
import { answerLimitMs, levelLimitMs } from '../stack/plan.ts'
import type { GuestRecord } from '../stack/record.ts'
import { NestvmError } from '../store/error.ts'
import { processIdentity } from '../store/process.ts'
import { diskOn, type End, type Supplies } from './end.ts'

/**
 * Starts a QEMU on the other end, with all that the guest had from its start, and notes in `moved`, its record as it is
 * there, which one that is. Throws `ENGINE_FAILED`.
 */
export async function startIncoming(
  context: Context,
  supplies: Supplies,
  { from, to }: { from: End; to: End },
  moved: GuestRecord,
): Promise<void> {
  const disks: QemuDisk[] = []
  for (const { content } of moved.disks.filter(fromStart)) {
    disks.push(await diskFor(context, await diskOn(to, supplies, content), to.hypervisor))
  }
  const spec = { ...qemuSpec(moved, to.place, true, disks), restored: true }
  const limits = { timeoutMs: levelLimitMs(moved.level, moved.accel), signal: context.signal }
  if (moved.tap !== undefined) {
    const network = { tap: moved.tap, address: moved.address, hypervisorMac: await macOf(from.place.machine, moved) }
    moved.enginePid = await launchIncoming(to.place, spec, network, limits)
    return
  }
  const { network } = moved
  await leadOutside(to.host, to.bundle, moved, context.signal, undefined)
  if (moved.network !== network) {
    throw new NestvmError(
      'ENGINE_FAILED',
      `on ${to.name} guests have no way out to the network: ${moved.networkReason}`,
    )
  }
  moved.enginePid = await launchIncomingOnHost(to.place, spec, limits)
  moved.engineProcess = to.host.name === thisHost ? processIdentity(moved.enginePid) : undefined
}

/** The guest knows its hypervisor by it. */
async function macOf(here: Machine, { tap, level }: GuestRecord): Promise<string> {
  const { stdout } = await run(here, ['cat', `/sys/class/net/${tap}/address`], { timeoutMs: answerLimitMs(level) })
  return stdout.trim()
}

/** The disks that were attached to the guest while it ran, under the same numbers. */
export async function attachDisks(
  context: Context,
  supplies: Supplies,
  to: End,
  target: Qmp,
  { disks }: GuestRecord,
): Promise<void> {
  for (const [index, disk] of disks.entries()) {
    if (fromStart(disk) || isNothing(disk)) continue
    await plug(target, await diskFor(context, await diskOn(to, supplies, disk.content), to.hypervisor), index + 1)
  }
}
