import { rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { stopContainer } from '../container/machine.ts'
import { run } from '../machine/run.ts'
import { leaveBridge } from '../network/bridge.ts'
import { machinePaths } from '../store/paths.ts'
import { removeTree } from '../store/write.ts'
import type { Context } from './context.ts'
import { takeOff, wasGiven } from './disk.ts'
import { endEngine, engineAlive } from './engine-process.ts'
import { unpublishPorts, unrouteThrough } from './forward.ts'
import { isHost, thisHost } from './host.ts'
import { engineMachine } from './output.ts'
import { answerLimitMs } from './plan.ts'
import { descendants, type GuestRecord, lineage, listRecords, loadRecord } from './record.ts'
import { removeScratches, scratchesOf, scratchesToGo } from './scratch.ts'
import { endVolumeServer } from './volume.ts'

/** Shuts down a guest, and first all that run in it, from the inside out. Their records go too. */
export async function stop(context: Context, record: GuestRecord): Promise<void> {
  const inner = descendants(record, await listRecords())
  const levels = [...new Set(inner.map((guest) => guest.level))].sort((a, b) => b - a)
  for (const level of levels) {
    const guests = inner.filter((guest) => guest.level === level)
    await Promise.all(guests.map((guest) => stopOne(context, guest)))
  }
  await stopOne(context, record)
}

async function stopOne(context: Context, record: GuestRecord): Promise<void> {
  if (record.phase === 'running' && (await runs(context, record))) await powerOff(context, record)
  await destroy(context, record)
}

/** Asks the guest to end, and waits a bounded time until its engine has. */
async function powerOff(context: Context, record: GuestRecord): Promise<void> {
  const limitMs = answerLimitMs(record.level)
  try {
    const guest = await context.guest(record)
    const { container } = record
    if (container) await stopContainer(guest, container.config.stopSignal ?? 'SIGTERM', limitMs)
    // The connection breaks while the guest goes down, so the command is not waited for.
    await guest.spawn(['sh', '-c', `sync; (sleep 0.1; ${endCommands[record.engine]} -f) >/dev/null 2>&1 </dev/null &`])
    const end = performance.now() + limitMs
    while (performance.now() < end && (await runs(context, record))) await sleep(50)
  } catch {
    // What does not answer is ended the hard way.
  } finally {
    context.forget(record)
  }
}

/** Firecracker ends when its guest resets its machine; on x86 it cannot be powered off. */
const endCommands: Record<GuestRecord['engine'], string> = {
  qemu: 'poweroff',
  bochs: 'poweroff',
  firecracker: 'reboot',
}

/** Whether a guest's engine is alive, as far as can be seen. Throws when the host that it runs on cannot be reached. */
export async function runs(context: Context, record: GuestRecord): Promise<boolean> {
  if (record.parent === undefined) return engineAlive(context, record)
  const base = await loadRecord(record.base).catch(() => undefined)
  if (!base || record.enginePid === undefined || !(await engineAlive(context, base))) return false
  return hasEngine(context, record).catch(() => false)
}

/** Whether a guest's engine has ended for sure. Throws when whoever knows does not answer. */
export async function isGone(context: Context, record: GuestRecord): Promise<boolean> {
  if (record.parent === undefined) return !(await engineAlive(context, record))
  const parent = await loadRecord(record.parent).catch(() => undefined)
  if (!parent || (await isGone(context, parent))) return true
  return !(await hasEngine(context, record))
}

async function hasEngine(context: Context, record: GuestRecord): Promise<boolean> {
  const machine = await engineMachine(context, record)
  const { exit } = await run(machine, ['test', '-d', `/proc/${record.enginePid}`], {
    timeoutMs: answerLimitMs(record.level - 1),
    allowFailure: true,
  })
  return exit.code === 0
}

/**
 * Ends a guest at once, with all that run in it, and removes every trace of it. Never fails for what is gone already;
 * throws, with all records left as they are, when the host that it runs on cannot be reached.
 */
export async function destroy(context: Context, record: GuestRecord): Promise<void> {
  const records = await listRecords()
  if (record.parent === undefined) {
    context.ending(record)
    await endEngine(context, record)
  } else await removeNested(context, record, records)
  await forget(context, record)
}

/** Removes what this host knows of a guest and of all that run in it. */
export async function forget(context: Context, record: GuestRecord): Promise<void> {
  const records = await listRecords()
  const going = [...descendants(record, records), record]
  const disks = await scratchesToGo(going)
  const ids = going.map(({ id }) => id)
  const holders = records.filter((other) => !ids.includes(other.id) && wasGiven(other, disks))
  // What is out of reach is lost to this host, which is told to forget it.
  await takeOff(context.toTheEnd(), holders, disks).catch(() => {})
  await removeScratches(context, record.host, disks).catch(() => {})
  for (const guest of going) {
    context.forget(guest)
    if (guest.moving) {
      const { from, to } = guest.moving
      // What is out of reach holds a guest that never runs again.
      await Promise.allSettled([from, to].map((side) => removeSide(context, side, guest)))
    }
    // Where it was started with another XDG_RUNTIME_DIR they are still there.
    if (guest.parent === undefined && guest.host === thisHost)
      await rm(guest.socketDir, { recursive: true, force: true })
    await endVolumeServer(guest)
    if (guest.bridge) await leaveBridge(context.host, guest.bridge)
    await removeTree(machinePaths(guest.id).dir)
  }
}

/**
 * Ends the engine that a guest has, or had, on one side of a move, and removes what is its own there. Throws when that
 * side does not answer.
 */
export async function removeSide(context: Context, side: string, record: GuestRecord): Promise<void> {
  if (!isHost(side)) return removeEngine(context, side, record)
  const host = await context.hostNamed(side)
  const dirs = { engineDir: host.engineDir(record.id), socketDir: host.socketDir(record.id) }
  // The process that the record names is perhaps the one on the other side.
  await endEngine(context, { ...record, ...dirs, host: side, engineProcess: undefined })
  const others = (await listRecords()).filter(({ id, host }) => id !== record.id && host === side)
  const used = new Set(others.map(({ scratch }) => scratch))
  const left = scratchesOf(record).filter((content) => !used.has(content))
  await removeScratches(context, side, left)
  if (side !== thisHost) return
  for (const dir of Object.values(dirs)) await rm(dir, { recursive: true, force: true })
}

/** The same in another guest. What is gone has none that runs. */
async function removeEngine(context: Context, hypervisor: string, record: GuestRecord): Promise<void> {
  const around = await loadRecord(hypervisor).catch(() => undefined)
  if (!around || (await isGone(context, around))) return
  const argv = ['sh', '-c', stopScript, 'sh', record.engineDir, `${record.tap}`]
  await run(await context.guest(around), argv, { timeoutMs: answerLimitMs(around.level) })
}

const stopScript = `dir=$1 tap=$2
pid=$(cat $dir/engine.pid 2>/dev/null)
[ "$pid" ] && kill -9 $pid 2>/dev/null
n=0; while [ "$pid" ] && [ -d /proc/$pid ] && [ $n -lt 500 ]; do n=$((n + 1)); usleep 20000; done
tunctl -d $tap >/dev/null 2>&1
rm -rf $dir`

/** What is in the guest goes with it; what the levels around it hold for the guests in it has to be removed, too. */
async function removeNested(context: Context, record: GuestRecord, records: readonly GuestRecord[]): Promise<void> {
  const base = records.find((other) => other.id === record.base)
  const parent = records.find((other) => other.id === record.parent)
  if (!parent || !base || !(await engineAlive(context, base))) return
  const guests = [record, ...descendants(record, records)]
  const ancestors = lineage(parent, records).slice(0, -1)
  // Cleaning up goes on after Ctrl-C, on connections of its own limits.
  await Promise.allSettled([
    removeEngine(context, parent.id, record),
    ...guests.map((guest) => unpublishPorts(context, base, guest)),
    ...ancestors.map((hypervisor) => unrouteThrough(context, hypervisor, guests)),
  ])
}
