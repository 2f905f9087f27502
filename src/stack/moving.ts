import { runOn } from '../engine/qemu/migration.ts'
import { run } from '../machine/run.ts'
import { isAlive } from '../store/process.ts'
import { forwardName } from './address.ts'
import type { Context } from './context.ts'
import {
  forwarded,
  forwardSsh,
  openQmp,
  publishPorts,
  routesThrough,
  unpublishPorts,
  unrouteThrough,
} from './forward.ts'
import { movedKeys } from './keys.ts'
import { answerLimitMs } from './plan.ts'
import { type GuestRecord, lineage, listRecords, loadRecord, saveRecord } from './record.ts'
import { isRelayed, withRelays } from './relay.ts'
import { removeEngine } from './stop.ts'

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
export async function settleMove(context: Context, id: string, onRunning = () => {}): Promise<void> {
  const record = await loadRecord(id)
  if (!record?.moving) return
  const { moving } = record
  if (record.parent === moving.to) await finish(context, record, moving, onRunning)
  else await undo(context, record, moving)
}

async function undo(context: Context, record: GuestRecord, moving: Moving): Promise<void> {
  await removeEngine(context, moving.to, record)
  await using qmp = await openQmp(context, record).catch(() => undefined)
  // Without a control socket there is no engine, which the next command finds out.
  if (qmp) await runOn(qmp)
  await saveRecord({ ...record, moving: undefined })
}

/** The new engine holds the guest: it runs, the ways to it lead there, and the old engine goes. Each step may be done already. */
async function finish(context: Context, record: GuestRecord, moving: Moving, onRunning: () => void): Promise<void> {
  {
    await using qmp = await openQmp(context, record)
    await qmp.execute('cont')
  }
  onRunning()
  await movedKeys(record)
  const before = await listRecords()
  const inner = before.filter(({ path, base }) => path.startsWith(`${moving.path}/`) && base === moving.base)
  const guests = [record]
  for (const guest of inner) guests.push(await follow(context, guest, record, moving, before))
  await redirect(context, guests, inner, moving)
  await removeEngine(context, moving.from, record)
  await saveRecord({ ...record, moving: undefined })
  for (const guest of guests) await setClock(context, guest)
}

/** A guest of one that has moved: what its record says of its place. */
async function follow(
  context: Context,
  guest: GuestRecord,
  mover: GuestRecord,
  moving: Moving,
  records: readonly GuestRecord[],
): Promise<GuestRecord> {
  const old = records.find(({ id }) => id === moving.from)
  const deeper = mover.level - 1 - (old?.level ?? mover.level - 1)
  return placed(context, guest, {
    path: `${mover.path}${guest.path.slice(moving.path.length)}`,
    ...{ base: mover.base, level: guest.level + deeper, stack: mover.stack },
  })
}

/** Writes where a guest is from now on. */
export async function placed(
  context: Context,
  guest: GuestRecord,
  place: Pick<GuestRecord, 'path' | 'base' | 'level' | 'stack'> & Partial<GuestRecord>,
): Promise<GuestRecord> {
  const { socketPath } = await context.hostNamed(guest.host)
  const relatives = (await listRecords()).filter(({ id, base }) => base === place.base && id !== guest.id)
  const bare = guest.ports.map(({ relay: _, ...port }) => port)
  const moved = {
    ...guest,
    ports: isRelayed(place.level) ? withRelays(bare, relatives) : bare,
    sshSocket: socketPath(place.base, forwardName(guest.address)),
    ...place,
  }
  await saveRecord(moved)
  await movedKeys(moved)
  context.forget(guest)
  return moved
}

/** Leads what comes from outside to where the guests are now. */
async function redirect(
  context: Context,
  guests: readonly GuestRecord[],
  before: readonly GuestRecord[],
  moving: Moving,
): Promise<void> {
  const [mover] = guests
  const records = await listRecords()
  const base = records.find(({ id }) => id === mover?.base)
  const parent = records.find(({ id }) => id === mover?.parent)
  if (!mover || !base || !parent) return
  const way = lineage(parent, records)
  await direct(context, parent, mover, guests)
  for (const guest of guests) await Promise.all(routesThrough(context, way, guest.address))
  const from = records.find(({ id }) => id === moving.from)
  const oldWay = from ? lineage(from, records) : []
  const left = oldWay.filter(({ id }) => !way.some((kept) => kept.id === id)).slice(0, -1)
  await Promise.allSettled(left.map((hypervisor) => unrouteThrough(context, hypervisor, guests)))
  const oldBase = oldWay[0]
  if (oldBase?.id === base.id) return
  // The ports are this host's, so they are free once the old side has let go of them.
  if (oldBase) {
    const old = [{ ...mover, ports: moving.ports }, ...before]
    await Promise.allSettled(old.map((guest) => unpublishPorts(context, oldBase, guest)))
  }
  const known = await forwarded(await context.hostNamed(mover.host), base.id)
  for (const guest of guests) {
    if (!known.includes(guest.address)) await forwardSsh(context, base, guest)
    await unpublishPorts(context, base, guest)
    await publishPorts(context, base, guest)
  }
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

/** It has stood still for a moment. */
async function setClock(context: Context, guest: GuestRecord): Promise<void> {
  const now = `@${(Date.now() / 1000).toFixed(0)}`
  const set = async () =>
    run(await context.guest(guest), ['date', '-s', now], { timeoutMs: answerLimitMs(guest.level) })
  await set().catch(() => {})
}
