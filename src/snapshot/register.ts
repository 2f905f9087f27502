import { randomBytes } from 'node:crypto'
import { largeMtu } from '../bundle/guest/scripts.ts'
import type { Context } from '../stack/context.ts'
import type { Host } from '../stack/host.ts'
import { type GuestIdentity, newIdentity } from '../stack/initrd.ts'
import { hostName } from '../stack/inside.ts'
import { writeKeys } from '../stack/keys.ts'
import { type GuestRecord, listRecords, saveRecord } from '../stack/record.ts'
import { nameTaken } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { statePaths } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import { withLock } from '../store/lock.ts'
import { forwardName } from '../stack/address.ts'
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
  const { snapshot, name, replaces = [] } = request
  const ids = new Map(snapshot.guests.map(({ id }) => [id, randomBytes(5).toString('hex')]))
  const clones = snapshot.guests.map((saved, index) => cloneOf(saved, index, ids, request))
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
  { snapshot, host, name, detach, innermost }: RestoreRequest,
): Clone {
  const newId = (old: string) => ids.get(old) ?? missing(old)
  const id = newId(saved.id)
  const base = newId(saved.base)
  const path = [name, ...saved.path.split('/').slice(1)].join('/')
  const identity = newIdentity({ hostname: hostName(path), address: saved.address, nested: saved.nested, mtu: largeMtu })
  const own = saved.parent === undefined ? { engineDir: host.engineDir(id), socketDir: host.socketDir(id) } : {}
  const ofStack = snapshot.guests.filter(({ stack }) => stack === snapshot.guests[0]?.stack)
  const changed = innermost && saved.id === ofStack.at(-1)?.id ? innermost : {}
  const record: GuestRecord = {
    ...{ ...saved, ...own, ...changed, id, path, base },
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

function missing(id: string): never {
  throw new NestvmError('SNAPSHOT_DAMAGED', `the snapshot speaks of a machine ${id} that is not in it`)
}
