import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { diskNode, engineFiles, hotplugNames } from '../engine/qemu/argv.ts'
import { guestCame } from '../engine/qemu/migration.ts'
import { diskSizes } from '../engine/qemu/mirror.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { stallLimit, unlessAborted } from '../machine/limit.ts'
import type { Machine } from '../machine/machine.ts'
import { hostEnd } from '../network/ports.ts'
import { forwardName } from '../stack/address.ts'
import type { Context } from '../stack/context.ts'
import { lastWords } from '../stack/death.ts'
import { fromStart } from '../stack/disk.ts'
import { openQmp } from '../stack/forward.ts'
import { freezeNested, mustFreeze, thawNested } from '../stack/freeze.ts'
import { placed, settleMove } from '../stack/moving.ts'
import { answerLimitMs, levelLimitMs } from '../stack/plan.ts'
import {
  descendants,
  type GuestRecord,
  listRecords,
  loadRecord,
  runsOn,
  saveRecord,
  whereabouts,
} from '../stack/record.ts'
import { isScratch, makeEmpty, scratchesOf } from '../stack/scratch.ts'
import { nameTaken } from '../stack/start.ts'
import { removeSide } from '../stack/stop.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { statePaths } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import { attachDisks, startIncoming } from './arrive.ts'
import { checkMove, checkProcessors, checkStill, checkWhole, type MigrateRequest, type Move } from './check.ts'
import type { End, Supplies } from './end.ts'
import { mirrorDisks } from './mirror.ts'
import { send } from './send.ts'

export interface Migrated {
  /** Its path now, and the one that it had. */
  machine: string
  from: string
  /** From its standing still to its running on, in milliseconds. */
  downtimeMs: number
  durationMs: number
  sentBytes: number
  /** Those of its published ports, and of the guests' in it, that are taken on the other host: they are given up. */
  portsTaken: string[]
}

/**
 * Moves a guest, with all that runs in it, while it runs: a nested one into another guest hypervisor, one of level 1 to
 * another host. When that fails at whatever point, the guest runs where its record says, which is where it was unless
 * the other side has taken over.
 * Throws what `checkMove` throws, `MIGRATION_FAILED`, `ENGINE_FAILED` or `MACHINE_LOST`.
 */
export async function migrate(context: Context, supplies: Supplies, request: MigrateRequest): Promise<Migrated> {
  const begun = performance.now()
  const checked = await checkMove(context, supplies, request)
  const guest = await begin(context, checked)
  const move = { ...checked, guest }
  const { to } = move
  const published = await portsOf(guest)
  const settling = context.toTheEnd()
  try {
    const { downtimeMs, bytes } = await transfer(context, supplies, move, request)
    // Once more where a connection broke, which is made anew then.
    await settleMove(settling, guest.id).catch(() => settleMove(settling, guest.id))
    const portsTaken = await without(published)
    const durationMs = performance.now() - begun
    return { machine: move.path, from: guest.path, downtimeMs, durationMs, sentBytes: bytes, portsTaken }
  } catch (error) {
    // What does not succeed now is for the next command; what is to be told is why it came to this.
    await settleMove(settling, guest.id).catch(() => {})
    // Whoever has removed the guest meanwhile may have come before its other engine.
    if (!(await loadRecord(guest.id))) await removeSide(settling, to.id, guest).catch(() => {})
    throw error
  }
}

/** The published ports of a guest and of those in it, by which guest has them. */
async function portsOf(guest: GuestRecord): Promise<Map<string, string[]>> {
  const guests = [guest, ...descendants(guest, await listRecords())]
  return new Map(guests.map(({ id, ports }) => [id, ports.map(hostEnd)]))
}

/** Those that their guests have no more. */
async function without(published: ReadonlyMap<string, readonly string[]>): Promise<string[]> {
  const lost = [...published].map(async ([id, ports]) => {
    const now = (await loadRecord(id))?.ports.map(hostEnd) ?? ports
    return ports.filter((port) => !now.includes(port))
  })
  return (await Promise.all(lost)).flat()
}

/**
 * How long a guest of this level may stand still at the end, unless said: what it changes until then must be sent in that
 * time, and each level makes the way to it some four times slower.
 */
export function usualDowntimeMs(level: number): number {
  return 500 * 4 ** Math.max(0, level - 2)
}

/** From now on its record tells that it is being moved, and by whom. Returns what it was at that moment. */
async function begin(context: Context, { guest, from, to }: Move): Promise<GuestRecord> {
  const by = processIdentity(process.pid)
  if (!by) throw new RangeError('this process lives')
  return exclusively(context, async () => {
    const records = await listRecords()
    const now = records.find(({ id }) => id === guest.id)
    if (!now || runsOn(now) !== from.id || now.enginePid !== guest.enginePid) {
      throw new NestvmError('CANNOT_MOVE', `${guest.path} has been moved or removed meanwhile`)
    }
    checkStill(now, to, records)
    await saveRecord({ ...now, moving: { by, from: from.id, to: to.id, before: whereabouts(now) } })
    return now
  })
}

function exclusively<T>(context: Context, work: () => Promise<T>): Promise<T> {
  return withLock(statePaths().lock, work, { timeoutMs: 60_000, signal: context.signal })
}

/** Until the guest runs on the other side; `downtimeMs` is how long it has stood still for that. */
async function transfer(
  context: Context,
  supplies: Supplies,
  move: Move,
  request: MigrateRequest,
): Promise<{ downtimeMs: number; bytes: number }> {
  const { to } = move
  const moved = arrived(move)
  // QEMU has one control socket for one client at a time.
  await using source = await openQmp(context, move.guest, qmpLimits(move, moved))
  if (mirrors(move)) await makeDisks(context, move, source)
  await startIncoming(context, supplies, move, moved)
  try {
    return await carry(context, supplies, move, moved, source, request)
  } catch (error) {
    context.signal.throwIfAborted()
    if (!(error instanceof NestvmError) || !['ENGINE_GONE', 'MIGRATION_FAILED'].includes(error.code)) throw error
    const { said } = await lastWords(to.place, engineFiles(moved.engineDir, moved.socketDir))
    const because = said === '' ? '' : `; on ${to.name} it said: ${said.slice(-500)}`
    const lost = await lostHost([move.from, to])
    const what = lost === undefined ? error.message : `the connection to ${lost} was lost`
    throw new NestvmError('MIGRATION_FAILED', `${what}${because}`, { cause: error })
  }
}

/** The first sign of it is that something there does not answer. */
async function lostHost(ends: readonly End[]): Promise<string | undefined> {
  for (const { host } of ends) {
    const lost = host.machine.lost?.then(() => true)
    if (lost && (await Promise.race([lost, sleep(500)]))) return host.name
  }
  return undefined
}

/** The guest as it is on the other side. */
function arrived({ guest, to, path }: Move): GuestRecord {
  const { host, hypervisor, level } = to
  const there = { path, level, host: host.name, parent: hypervisor?.id, base: hypervisor?.base ?? guest.id }
  if (hypervisor) return { ...guest, ...there }
  const sshSocket = host.socketPath(guest.id, forwardName(guest.address))
  return { ...guest, ...there, sshSocket, engineDir: host.engineDir(guest.id), socketDir: host.socketDir(guest.id) }
}

/** What it writes is in files of its host. */
function mirrors({ guest, to }: Move): boolean {
  return to.host.name !== guest.host
}

/** Empty ones there, for what will be sent. */
async function makeDisks({ signal }: Context, { guest, to }: Move, source: Qmp): Promise<void> {
  const sizes = await diskSizes(source, writtenNodes(guest))
  for (const [index, content] of scratchesOf(guest).entries()) {
    await makeEmpty(to.host, content, sizes[index] ?? 0, signal)
  }
}

/** In the order of `scratchesOf`. */
function writtenNodes({ disks }: GuestRecord): string[] {
  const nodes = disks.map((disk, index) => (fromStart(disk) ? diskNode(index) : hotplugNames(index + 1).node))
  return nodes.filter((_, index) => isScratch(disks[index]?.content ?? ''))
}

async function carry(
  context: Context,
  supplies: Supplies,
  move: Move,
  moved: GuestRecord,
  source: Qmp,
  request: MigrateRequest,
): Promise<{ downtimeMs: number; bytes: number }> {
  const { guest, from, to } = move
  const { signal } = context
  const qmp = qmpLimits(move, moved)
  await using target = await openQmp(context, moved, qmp)
  await checkProcessors(move, source, target, request.force)
  await attachDisks(context, supplies, to, target, moved)
  const way = {
    from: { machine: from.place.machine, qmp: source, socketDir: guest.socketDir, shared: !from.hypervisor },
    to: { machine: to.place.machine, qmp: target, socketDir: moved.socketDir },
  }
  const nodes = mirrors(move) ? writtenNodes(guest) : []
  const limits = { ...request, stallMs: qmp.answerMs }
  using mirror =
    nodes.length > 0 ? await mirrorDisks(way, nodes, limits, signal, request.onProgress ?? (() => {})) : undefined
  const onDisks = mirror?.sent ?? 0
  let bytes = onDisks
  const nesting = descendants(guest, await listRecords()).length > 0
  const hold = nesting && mustFreeze(guest) ? () => freeze(context, guest) : undefined
  const sending = send(way, { ...limits, hold, beforeEnd: mirror?.end }, signal, ({ sent, left }) => {
    bytes = onDisks + sent
    request.onProgress?.({ sent: bytes, left })
  })
  const since = await (mirror ? Promise.race([sending, mirror.failed]) : sending)
  const here = { machine: from.place.machine, dir: guest.engineDir }
  const there = { machine: to.place.machine, dir: moved.engineDir }
  await Promise.all([guestCame(target, 'MIGRATION_FAILED', signal), copyLogs(here, there, moved.level, signal)])
  // Copying takes a while, after which it may not be there any more: the guest would be lost with it.
  await target.execute('query-status')
  await takeOver(context, move, moved)
  // This is only the fastest way: what does not succeed is done when the move is settled.
  await target.execute('cont').catch(() => {})
  if (hold) await thawNested(await context.guest(moved), answerLimitMs(moved.level)).catch(() => {})
  return { downtimeMs: performance.now() - since, bytes }
}

async function freeze(context: Context, guest: GuestRecord): Promise<AsyncDisposable> {
  return freezeNested(await context.guest(guest), levelLimitMs(guest.level, guest.accel), context.signal)
}

/** On both sides: the one that is slower to reach counts. */
function qmpLimits({ guest }: Move, moved: GuestRecord): { wholeMs: number; answerMs: number } {
  return { wholeMs: longestMoveMs, answerMs: answerLimitMs(Math.max(guest.level, moved.level)) }
}

/** Of a big guest over a slow way. */
const longestMoveMs = 12 * 3_600_000

interface Directory {
  machine: Machine
  dir: string
}

/** What the guest has said so far is there too; it stands still. */
async function copyLogs(here: Directory, there: Directory, level: number, stop: AbortSignal): Promise<void> {
  const { output, exitStatus, kernelLog, consoleLog } = engineFiles('.')
  const late = new NestvmError('MIGRATION_FAILED', 'the other side does not take what the guest has written')
  using stall = stallLimit(answerLimitMs(level), late)
  const signal = AbortSignal.any([stop, stall.signal])
  const files = [output, exitStatus, kernelLog, consoleLog]
  const reader = await here.machine.spawn(['tar', '-C', here.dir, '-cf', '-', ...files], { noInput: true, signal })
  const writer = await there.machine.spawn(['sh', '-c', appendScript, 'sh', there.dir], { signal })
  for (const unread of [reader.stderr, writer.stdout]) unread.resume()
  let why = ''
  writer.stderr.on('data', (chunk: Buffer) => {
    why = `${why}${chunk}`.slice(-1000)
  })
  // It flows from here on.
  reader.stdout.on('data', stall.restart)
  // Whoever stops reading says why at its end.
  const [, wrote, read] = await unlessAborted(
    Promise.all([pipeline(reader.stdout, writer.stdin).catch(() => {}), writer.exited, reader.exited]),
    signal,
  )
  if (wrote.code !== 0 || read.code !== 0) {
    throw new NestvmError('MIGRATION_FAILED', `what the guest has written could not be copied: ${why.trim()}`)
  }
}

/** The new engine has them open, to append to. */
const appendScript = `mkdir "$1/logs" && cd "$1/logs" && tar -xf - || exit 1
for file in *; do cat "$file" >> "../$file" || exit 1; done
rm -r "$1/logs"`

/** The one step by which the guest is on the other side. */
async function takeOver(context: Context, { guest, to }: Move, moved: GuestRecord): Promise<void> {
  const { id, stack, parent } = guest
  const { path, network, networkReason, engineProcess } = moved
  // What is moved into another guest no longer ends with the guests around it.
  const own = parent === undefined || stack === id ? stack : id
  await exclusively(context, async () => {
    const now = await loadRecord(id)
    if (!now?.moving) throw new NestvmError('MIGRATION_FAILED', `${path} was removed meanwhile`)
    const records = await listRecords()
    if (records.some((other) => other.path === path && other.id !== id)) throw nameTaken(path)
    // Others may have come there meanwhile.
    checkWhole(now, to, records, descendants(now, records))
    await placed(context, now, { ...whereabouts(moved), engineProcess, network, networkReason, stack: own })
  })
}
