import { pipeline } from 'node:stream/promises'
import type { Bundle } from '../bundle/bundle.ts'
import { engineFiles, type QemuDisk } from '../engine/qemu/argv.ts'
import { expectGuest, guestCame, sendGuest } from '../engine/qemu/migration.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { timeLimit } from '../machine/limit.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import type { SshMachine } from '../machine/ssh.ts'
import type { Context } from '../stack/context.ts'
import { qemuSpec } from '../stack/describe.ts'
import { diskFor, fromStart, hostDisk, plug } from '../stack/disk.ts'
import { openQmp } from '../stack/forward.ts'
import { launchIncoming } from '../stack/launch.ts'
import { placed, settleMove } from '../stack/moving.ts'
import { guestPlace } from '../stack/place.ts'
import { answerLimitMs, levelLimitMs } from '../stack/plan.ts'
import { type GuestRecord, listRecords, loadRecord, saveRecord } from '../stack/record.ts'
import { nameTaken } from '../stack/start.ts'
import { removeEngine } from '../stack/stop.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { statePaths } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import { checkMove, checkProcessors, type MigrateRequest, type Move } from './check.ts'

export interface Migrated {
  /** Its path now, and the one that it had. */
  machine: string
  from: string
  /** From its standing still to its running on, in milliseconds. */
  downtimeMs: number
  durationMs: number
  sentBytes: number
}

/**
 * Moves a nested guest, with all that runs in it, into another guest hypervisor, while it runs. When that fails at
 * whatever point, the guest runs where its record says, which is where it was unless the other side has taken over.
 * Throws what `checkMove` throws, `MIGRATION_FAILED`, `ENGINE_FAILED` or `MACHINE_LOST`.
 */
export async function migrate(context: Context, bundle: Bundle, request: MigrateRequest): Promise<Migrated> {
  const begun = performance.now()
  const move = await checkMove(context, bundle, request)
  const { guest, to } = move
  await begin(context, move)
  try {
    const { downtimeMs, sentBytes } = await transfer(context, bundle, move, request)
    return { machine: move.path, from: guest.path, downtimeMs, durationMs: performance.now() - begun, sentBytes }
  } catch (error) {
    await settleMove(context, guest.id)
    // Whoever has removed the guest meanwhile may have come before its other engine.
    if (!(await loadRecord(guest.id))) await removeEngine(context, to.id, guest)
    throw error
  }
}

/**
 * How long a guest of this level may stand still at the end, unless said: what it changes until then must be sent in that
 * time, and each level makes the way to it some four times slower.
 */
export function usualDowntimeMs(level: number): number {
  return 500 * 4 ** Math.max(0, level - 2)
}

/** From now on its record tells that it is being moved, and by whom. */
async function begin(context: Context, { guest, from, to }: Move): Promise<void> {
  const by = processIdentity(process.pid)
  if (!by) throw new RangeError('this process lives')
  await exclusively(context, async () => {
    const now = await loadRecord(guest.id)
    if (!now || now.moving) throw new NestvmError('CANNOT_MOVE', `${guest.path} is being moved already, or gone`)
    const { path, base, ports } = now
    await saveRecord({ ...now, moving: { by, from: from.id, to: to.id, path, base, ports } })
  })
}

function exclusively<T>(context: Context, work: () => Promise<T>): Promise<T> {
  return withLock(statePaths().lock, work, { timeoutMs: 60_000, signal: context.signal })
}

async function transfer(
  context: Context,
  bundle: Bundle,
  move: Move,
  request: MigrateRequest,
): Promise<{ downtimeMs: number; sentBytes: number }> {
  const { guest, from, to, path } = move
  const [here, there] = await Promise.all([context.guest(from), context.guest(to)])
  const moved = { ...guest, ...{ path, parent: to.id, base: to.base, level: to.level + 1 } }
  moved.enginePid = await prepare(context, bundle, { guest, moved, to, here, there })
  const sent = await sendAcross(context, bundle, move, { guest, moved, to, here, there }, request)
  const stopped = performance.now()
  await takeOver(context, guest, moved)
  let running = performance.now()
  await settleMove(context, guest.id, () => {
    running = performance.now()
  })
  return { downtimeMs: sent.downtimeMs + running - stopped, sentBytes: sent.bytes }
}

/** When it has come, the guest stands still on both sides. QEMU has one control socket for one client at a time. */
async function sendAcross(
  context: Context,
  bundle: Bundle,
  move: Move,
  { guest, moved, here, there }: Sides,
  request: MigrateRequest,
): Promise<{ downtimeMs: number; bytes: number }> {
  await using source = await openQmp(context, guest, longestMoveMs)
  await using target = await openQmp(context, moved, longestMoveMs)
  await checkProcessors(move, source, target, request.force)
  await attachDisks(context, bundle, target, moved, move.to)
  let bytes = 0
  const told = await send(
    { here, there, source, target, dir: guest.engineDir },
    request,
    context.signal,
    (progress) => {
      bytes = progress.sent
      request.onProgress?.(progress)
    },
  )
  const stopped = performance.now()
  await Promise.all([
    guestCame(target, 'MIGRATION_FAILED', context.signal),
    copyLogs(here, there, guest, context.signal),
  ])
  return { downtimeMs: told + performance.now() - stopped, bytes }
}

/** Of a big guest over a slow way. */
const longestMoveMs = 12 * 3_600_000

interface Sides {
  guest: GuestRecord
  moved: GuestRecord
  to: GuestRecord
  here: SshMachine
  there: Machine
}

/** A QEMU on the other side, with all that the guest has here. Returns its pid. */
async function prepare(context: Context, bundle: Bundle, { guest, moved, to, here, there }: Sides): Promise<number> {
  const hypervisorMac = await macOf(here, guest)
  const disks: QemuDisk[] = []
  for (const { content } of guest.disks.filter(fromStart))
    disks.push(await diskFor(context, hostDisk(content, bundle), to))
  const place = guestPlace(there, bundle)
  const spec = { ...qemuSpec(moved, place, true, disks), restored: true }
  const limits = { timeoutMs: levelLimitMs(moved.level, moved.accel), signal: context.signal }
  return launchIncoming(place, spec, { tap: `${guest.tap}`, address: guest.address, hypervisorMac }, limits)
}

/** The guest knows its hypervisor by it. */
async function macOf(here: Machine, { tap, level }: GuestRecord): Promise<string> {
  const { stdout } = await run(here, ['cat', `/sys/class/net/${tap}/address`], { timeoutMs: answerLimitMs(level) })
  return stdout.trim()
}

async function attachDisks(context: Context, bundle: Bundle, target: Qmp, guest: GuestRecord, to: GuestRecord) {
  for (const [index, disk] of guest.disks.entries()) {
    if (!fromStart(disk)) await plug(target, await diskFor(context, hostDisk(disk.content, bundle), to), index + 1)
  }
}

interface Ends {
  here: SshMachine
  there: Machine
  source: Qmp
  target: Qmp
  /** Of its engine, on both sides. */
  dir: string
}

/**
 * From one QEMU to the other through this process, over the connections that it has to both sides: they need not reach
 * each other, and what passes is encrypted. Returns how long the guest has stood still, in milliseconds.
 */
async function send(
  { here, there, source, target, dir }: Ends,
  limits: MigrateRequest,
  signal: AbortSignal,
  onProgress: NonNullable<MigrateRequest['onProgress']>,
): Promise<number> {
  const socket = `${dir}/incoming`
  await expectGuest(target, `unix:${socket}`)
  const incoming = await there.connect({ unix: socket }, signal)
  const { port, connection, cancel } = await here.listenOnce(signal)
  try {
    incoming.resume()
    const piped = connection.then((outgoing) => pipeline(outgoing, incoming, { signal }))
    // QEMU says what breaks the way too, but may wait long for it; and what cannot be written does not tell of an end.
    const broken = piped.then(
      () => new Promise<never>(() => {}),
      (error: unknown) => {
        const why = error instanceof Error ? error.message : error
        throw new NestvmError('MIGRATION_FAILED', `the way to the other side broke: ${why}`, { cause: error })
      },
    )
    broken.catch(() => {})
    const sent = sendGuest(source, `tcp:127.0.0.1:${port}`, limits, onProgress, signal)
    const stoodStill = await Promise.race([sent, broken, target.ended])
    await piped
    return stoodStill
  } finally {
    cancel()
    incoming.destroy()
    connection.then((outgoing) => outgoing.destroy())
  }
}

/** What the guest has said so far is there too; it stands still. */
async function copyLogs(here: Machine, there: Machine, { engineDir, level }: GuestRecord, stop: AbortSignal) {
  const { output, kernelLog, consoleLog } = engineFiles('.')
  const signal = AbortSignal.any([stop, timeLimit(answerLimitMs(level))])
  const reader = await here.spawn(['tar', '-C', engineDir, '-cf', '-', output, kernelLog, consoleLog], {
    noInput: true,
    signal,
  })
  const writer = await there.spawn(['sh', '-c', appendScript, 'sh', engineDir], { signal })
  for (const unread of [reader.stderr, writer.stderr, writer.stdout]) unread.resume()
  await Promise.all([pipeline(reader.stdout, writer.stdin), writer.exited])
}

/** The new engine has them open, to append to. */
const appendScript = `mkdir "$1/logs" && cd "$1/logs" && tar -xf - || exit 1
for file in *; do cat "$file" >> "../$file"; done
rm -r "$1/logs"`

/** The one step by which the guest is on the other side. */
async function takeOver(
  context: Context,
  { id, stack }: GuestRecord,
  { path, parent, base, level, enginePid }: GuestRecord,
) {
  await exclusively(context, async () => {
    const now = await loadRecord(id)
    if (!now?.moving) throw new NestvmError('MIGRATION_FAILED', `${path} was removed meanwhile`)
    if ((await listRecords()).some((other) => other.path === path && other.id !== id)) throw nameTaken(path)
    await placed(context, now, { path, base, level, stack: stack === id ? stack : id, parent, enginePid })
  })
}
