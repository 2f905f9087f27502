import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { largeMtu } from '../bundle/guest/scripts.ts'
import { forwardName } from '../stack/address.ts'
import type { Context } from '../stack/context.ts'
import type { Host } from '../stack/host.ts'
import { type GuestIdentity, newIdentity } from '../stack/initrd.ts'
import { hostName } from '../stack/inside.ts'
import { writeKeys } from '../stack/keys.ts'
import { type GuestRecord, listRecords, saveRecord } from '../stack/record.ts'
import { copyDisk, newScratch, scratchPath } from '../stack/scratch.ts'
import { nameTaken } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { statePaths } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import { type Snapshot, snapshotDir } from './record.ts'
import type { RestoreRequest } from './restore.ts'

/** A saved guest's next life. */
export interface Clone {
  record: GuestRecord
  identity: GuestIdentity
  /** On the host: lead to the shell that waits in it. */
  sockets: { orders: string; stdout: string; stderr: string }
}

/** Takes names, ids and keys for all guests of a snapshot, outer before inner. Throws `NAME_TAKEN`. */
export async function registerClones(context: Context, request: RestoreRequest): Promise<Clone[]> {
  const { snapshot, host, name, replaces = [] } = request
  const ids = new Map(snapshot.guests.map(({ id }) => [id, randomBytes(5).toString('hex')]))
  const copies = await copyDisks(context, snapshot, host)
  const clones = snapshot.guests.map((saved, index) => cloneOf(withDisks(saved, copies), index, ids, request))
  await withLock(
    statePaths().lock,
    async () => {
      const taken = (await listRecords()).find(({ id, path }) => path === name && !replaces.includes(id))
      if (taken) throw nameTaken(name)
      await Promise.all(clones.map(({ record }) => saveRecord(record)))
    },
    { timeoutMs: 60_000, signal: context.signal },
  )
  await Promise.all(clones.map(({ record, identity }) => writeKeys(record, identity)))
  return clones
}

function cloneOf(
  saved: GuestRecord,
  index: number,
  ids: ReadonlyMap<string, string>,
  { snapshot, host, name, detach, innermost, ports }: RestoreRequest,
): Clone {
  const newId = (old: string) => ids.get(old) ?? missing(old)
  const id = newId(saved.id)
  const base = newId(saved.base)
  const path = [name, ...saved.path.split('/').slice(1)].join('/')
  const identity = newIdentity({
    hostname: hostName(path),
    address: saved.address,
    nested: saved.nested,
    mtu: largeMtu,
  })
  const own = saved.parent === undefined ? { engineDir: host.engineDir(id), socketDir: host.socketDir(id) } : {}
  const ofStack = snapshot.guests.filter(({ stack }) => stack === snapshot.guests[0]?.stack)
  const isInnermost = saved.id === ofStack.at(-1)?.id
  const record: GuestRecord = {
    ...{ ...saved, ...own, ...(isInnermost ? innermost : {}), id, path, base },
    ports: isInnermost ? [...ports] : [],
    parent: saved.parent && newId(saved.parent),
    stack: newId(saved.stack),
    host: host.name,
    createdAt: new Date().toISOString(),
    phase: 'starting',
    owner: processIdentity(process.pid),
    detached: detach,
    engineProcess: undefined,
    sshSocket: host.socketPath(base, forwardName(saved.address)),
    hostKey: identity.host.publicBlob.toString('base64'),
  }
  const socket = (what: string) => host.socketPath(base, `w${index}${what}`)
  return { record, identity, sockets: { orders: socket('i'), stdout: socket('o'), stderr: socket('e') } }
}

/** From the names of saved disks to those of copies for the clone. One that no record names is removed by `reap`. */
async function copyDisks(
  context: Context,
  snapshot: Snapshot,
  host: Pick<Host, 'disksDir'>,
): Promise<ReadonlyMap<string, string>> {
  if (snapshot.disks.length > 0) await mkdir(host.disksDir, { recursive: true, mode: 0o700 })
  const copies = snapshot.disks.map(async ({ content, file }): Promise<[string, string]> => {
    const copy = newScratch()
    await copyDisk(context, join(snapshotDir(snapshot), file), scratchPath(host, copy))
    return [content, copy]
  })
  return new Map(await Promise.all(copies))
}

function withDisks(saved: GuestRecord, copies: ReadonlyMap<string, string>): GuestRecord {
  const disks = saved.disks.map((disk) => ({ ...disk, content: copies.get(disk.content) ?? disk.content }))
  return { ...saved, disks, scratch: saved.scratch && copies.get(saved.scratch) }
}

function missing(id: string): never {
  throw new NestvmError('SNAPSHOT_DAMAGED', `the snapshot speaks of a machine ${id} that is not in it`)
}
