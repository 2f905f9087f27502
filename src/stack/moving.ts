import { runOn } from '../engine/qemu/migration.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { machinePaths } from '../store/paths.ts'
import { isAlive } from '../store/process.ts'
import { forwardName } from './address.ts'
import type { Context } from './context.ts'
import { takeOff } from './disk.ts'
import {
  forwarded,
  forwardSsh,
  openQmp,
  publishPorts,
  routesThrough,
  unpublishPorts,
  unrouteThrough,
} from './forward.ts'
import { mustFreeze, thawNested } from './freeze.ts'
import { movedKeys } from './keys.ts'
import { answerLimitMs } from './plan.ts'
import {
  changeRecord,
  descendants,
  type GuestRecord,
  lineage,
  listRecords,
  loadRecord,
  runsOn,
  saveRecord,
} from './record.ts'
import { isRelayed, withRelays } from './relay.ts'
import { scratchesOf } from './scratch.ts'
import { isGone, removeSide } from './stop.ts'
import { followVolumes, keepVolumes } from './volume.ts'

/*
 * A guest that is moved has an engine on both sides for a while. Its record says where it is: as long as it names the
 * old side, the new engine has never run the guest, and once it names the new one, the old engine never will again. So
 * whatever breaks off a move, at whatever point, what the record says tells how it is to be brought to its end.
 */

type Moving = NonNullable<GuestRecord['moving']>

/** Ends the move that a dead process has left. */
export async function settleAbandoned(context: Context, record: GuestRecord): Promise<void> {
  if (record.moving && !isAlive(record.moving.by)) await settleMove(context, record.id)
}

/** Brings a move to its end: the guest runs on one side, the one that its record names, and nothing is left on the other. */
export async function settleMove(context: Context, id: string): Promise<void> {
  if (!(await loadRecord(id))?.moving) return
  const { moveLock } = machinePaths(id)
  await withLock(moveLock, () => settle(context, id), { timeoutMs: 60_000, signal: context.signal })
}

/** When a side does not answer, the record goes on to say that the guest is being moved, and the next command tries again. */
async function settle(context: Context, id: string): Promise<void> {
  const record = await loadRecord(id)
  // Another command may have brought it to its end meanwhile, and a third one have begun the next move.
  if (!record?.moving || (record.moving.by.pid !== process.pid && isAlive(record.moving.by))) return
  if (runsOn(record) === record.moving.to) await finish(context, record, record.moving)
  else await undo(context, record, record.moving)
  await changeRecord(id, () => ({ moving: undefined }))
}

async function undo(context: Context, record: GuestRecord, moving: Moving): Promise<void> {
  await letRun(context, record, runOn)
  await leave(context, record, moving.to)
}

/** Removes what a guest has on the side where it is not. */
async function leave(context: Context, record: GuestRecord, side: string): Promise<void> {
  await removeSide(context, side, record)
  const records = await listRecords()
  const hypervisor = records.find(({ id }) => id === side)
  if (!hypervisor) return
  const staying = lineage(record, records)
  const left = lineage(hypervisor, records).filter((guest) => !staying.includes(guest))
  // Of a disk that it goes on having nothing is lost, as nobody else writes to it.
  await takeOff(context, left, scratchesOf(record)).catch(() => {})
}

/** The new engine holds the guest: it runs, the ways to it lead there, and the old engine goes. Each step may be done already. */
async function finish(context: Context, record: GuestRecord, moving: Moving): Promise<void> {
  const alive = await letRun(context, record, (qmp) => qmp.execute('cont'))
  if (alive && mustFreeze(record)) await thawNested(await context.guest(record), answerLimitMs(record.level))
  await movedKeys(record)
  const inner = await withIt(record, moving)
  const guests = [record]
  for (const guest of inner) guests.push(await follow(context, guest, record, moving))
  if (alive) await redirect(context, guests, [{ ...record, ports: moving.before.ports }, ...inner], moving)
  await leave(context, record, moving.from)
  if (alive) await setClocks(context, guests).catch(() => {})
}

/** Returns whether it has an engine that can. Throws when that does not answer. */
async function letRun(context: Context, record: GuestRecord, go: (qmp: Qmp) => Promise<unknown>): Promise<boolean> {
  try {
    await using qmp = await openQmp(context, record)
    await go(qmp)
    return true
  } catch (error) {
    if (await isGone(context, record)) return false
    throw error
  }
}

/** The guests that run in it: of some the records may tell already where they are now. */
async function withIt(mover: GuestRecord, { before }: Moving): Promise<GuestRecord[]> {
  const records = await listRecords()
  const found = new Set([before, mover].flatMap((where) => descendants(where, records)))
  return records.filter((guest) => found.has(guest))
}

/** A guest of one that has moved: what its record says of its place. */
async function follow(context: Context, guest: GuestRecord, mover: GuestRecord, moving: Moving): Promise<GuestRecord> {
  const old = guest.path.startsWith(`${moving.before.path}/`) ? moving.before.path : mover.path
  const within = guest.path.slice(old.length)
  const level = mover.level + within.split('/').length - 1
  const { base, host, stack } = mover
  return placed(context, guest, { path: mover.path + within, base, host, level, stack })
}

/** Writes where a guest is from now on. */
export async function placed(
  context: Context,
  guest: GuestRecord,
  place: Pick<GuestRecord, 'path' | 'base' | 'level' | 'stack' | 'host'> & Partial<GuestRecord>,
): Promise<GuestRecord> {
  const { socketPath } = await context.hostNamed(place.host)
  const relatives = (await listRecords()).filter(({ id, base }) => base === place.base && id !== guest.id)
  const bare = guest.ports.map(({ relay: _, ...port }) => port)
  const elsewhere = {
    ports: isRelayed(place.level) ? withRelays(bare, relatives) : bare,
    volumeAddress: guest.volumeSlot === undefined ? undefined : await mountedFrom(guest),
  }
  const moved = {
    ...guest,
    ...place,
    // In the same level 1 guest what leads to ports and volumes stays, with the connections that it carries.
    ...(place.base === guest.base ? {} : elsewhere),
    sshSocket: socketPath(place.base, forwardName(guest.address)),
  }
  await saveRecord(moved)
  await movedKeys(moved)
  context.forget(guest)
  return moved
}

async function mountedFrom({ base, volumeAddress }: GuestRecord): Promise<string | undefined> {
  return volumeAddress ?? (await loadRecord(base).catch(() => undefined))?.address
}

/** Leads what comes from outside to where the guests are now; `was` are their records from then. */
async function redirect(
  context: Context,
  guests: readonly GuestRecord[],
  was: readonly GuestRecord[],
  moving: Moving,
): Promise<void> {
  const [mover] = guests
  const records = await listRecords()
  const base = records.find(({ id }) => id === mover?.base)
  if (!mover || !base) return
  await reroute(context, guests, moving, records)
  const { before } = moving
  if (before.base === base.id && before.host === base.host) return
  const left = records.find(({ id }) => id === before.base)
  // The ports may be this host's, so they are free once the old side has let go of them.
  if (before.base === base.id) {
    for (const guest of guests.slice(1)) await keepVolumes({ host: before.host, socketDir: before.socketDir }, guest)
    // What is out of reach is tried again, when all else is done.
    await removeSide(context, moving.from, mover).catch(() => {})
  } else if (left) await unpublishThere(context, left, was)
  const known = await forwarded(await context.hostNamed(base.host), base.id)
  for (const guest of guests) {
    if (!known.includes(guest.address)) await forwardSsh(context, base, guest)
    await publishAgain(context, base, guest)
    if (guest.id !== base.id) await followVolumes(context, left, base, guest)
  }
}

/** What stays published there would be taken for somebody else's. */
async function unpublishThere(context: Context, base: GuestRecord, guests: readonly GuestRecord[]): Promise<void> {
  const done = await Promise.allSettled(guests.map((guest) => unpublishPorts(context, base, guest)))
  const failed = done.find((result) => result.status === 'rejected')
  if (failed && !(await isGone(context, base))) throw failed.reason
}

/** On another host ports may be taken: the guest does without them then, as its record tells. */
async function publishAgain(context: Context, base: GuestRecord, guest: GuestRecord): Promise<void> {
  await unpublishPorts(context, base, guest)
  const taken: GuestRecord['ports'] = []
  for (const port of guest.ports) {
    await publishPorts(context, base, { ...guest, ports: [port] }).catch((error: unknown) => {
      if (!(error instanceof NestvmError) || error.code !== 'PORT_TAKEN') throw error
      taken.push(port)
    })
  }
  if (taken.length === 0) return
  await changeRecord(guest.id, () => ({ ports: guest.ports.filter((port) => !taken.includes(port)) }))
}

/** In the guests between the outermost one and those that have moved, where these are in others. */
async function reroute(
  context: Context,
  guests: readonly GuestRecord[],
  moving: Moving,
  records: readonly GuestRecord[],
): Promise<void> {
  const [mover] = guests
  const parent = records.find(({ id }) => id === mover?.parent)
  if (!mover || !parent) return
  const way = lineage(parent, records)
  await direct(context, parent, mover, guests)
  for (const guest of guests) await Promise.all(routesThrough(context, way, guest.address))
  const from = records.find(({ id }) => id === moving.from)
  const oldWay = from ? lineage(from, records) : []
  const left = oldWay.filter(({ id }) => !way.some((kept) => kept.id === id)).slice(0, -1)
  await Promise.allSettled(left.map((hypervisor) => unrouteThrough(context, hypervisor, guests)))
}

/** In the guest that it has come into, by its own tap device. */
async function direct(context: Context, parent: GuestRecord, mover: GuestRecord, guests: readonly GuestRecord[]) {
  const script = `tap=$1 by=$2; shift 2
ip route replace $by/32 dev $tap || exit 1
for address; do ip route replace $address/32 via $by dev $tap || exit 1; done`
  const inner = guests.slice(1).map(({ address }) => address)
  await run(await context.guest(parent), ['sh', '-c', script, 'sh', `${mover.tap}`, mover.address, ...inner], {
    timeoutMs: answerLimitMs(parent.level),
  })
}

/** They have stood still for a moment. One whose engine ends meanwhile is not waited for. */
async function setClocks(context: Context, guests: readonly GuestRecord[]): Promise<void> {
  const [mover] = guests
  if (!mover) return
  await using qmp = await openQmp(context, mover)
  const set = async (guest: GuestRecord) => {
    const now = `@${(Date.now() / 1000).toFixed(0)}`
    await run(await context.guest(guest), ['date', '-s', now], { timeoutMs: answerLimitMs(guest.level) })
  }
  await Promise.race([Promise.allSettled(guests.map(set)), qmp.ended])
}
