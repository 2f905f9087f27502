import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { cachePaths, machinePaths, presentRuntimeDir, statePaths } from '../store/paths.ts'
import { isAlive } from '../store/process.ts'
import { removeLeftovers, removeTree } from '../store/write.ts'
import type { Context } from './context.ts'
import { noteEnd } from './end.ts'
import { endEnginesHere, engineAlive } from './engine-process.ts'
import { thisHost } from './host.ts'
import { settleAbandoned } from './moving.ts'
import { type GuestRecord, isCurrent, listRecords, loadRecord, machineIds } from './record.ts'
import { wake } from './saved.ts'
import { scratchesOf, scratchPath } from './scratch.ts'
import { destroy } from './stop.ts'

/**
 * Cleans up after commands that were killed and guests that ended by themselves, on this host. Every command that looks
 * at machines calls it first; with nothing to do it reads a few small files. Another host is for those commands that
 * connect to it anyway; throws when it cannot be reached.
 */
export async function reap(context: Context, host = thisHost): Promise<void> {
  if (host === thisHost) {
    await removeHalfMade(context)
    for (const dir of [cachePaths().snapshots, statePaths().machines, presentRuntimeDir()]) {
      if (dir !== undefined) await removeLeftovers(dir)
    }
  }
  const records = await listRecords()
  if (host === thisHost) await removeStrayDisks(records)
  for (const record of records) {
    // One between hosts is to be settled whichever it is on; one whose sides do not answer is for a later command.
    if (record.moving && host === thisHost) await settleAbandoned(context, record).catch(() => {})
    if (record.host !== host) continue
    if (record.owner && !isAlive(record.owner)) await destroyOwned(context, record)
    else if (!record.owner && record.parent === undefined && record.phase === 'running') {
      if (await engineAlive(context, record)) await wake(context, record)
      else if (await isCurrent(record)) await noteEnd(context, record)
    }
  }
}

/** The owner may have let go of the guest just before it ended; once it is dead it cannot any more. */
async function destroyOwned(context: Context, record: GuestRecord): Promise<void> {
  const now = await loadRecord(record.id).catch(() => undefined)
  if (now?.owner && !isAlive(now.owner)) await destroy(context, now)
}

/** A clone's disk is made shortly before the record that names it. */
async function removeStrayDisks(records: readonly GuestRecord[]): Promise<void> {
  const dir = statePaths().disks
  const host = { disksDir: dir }
  const kept = new Set(records.flatMap(scratchesOf).map((content) => scratchPath(host, content)))
  for (const name of await readdir(dir).catch(() => [])) {
    const path = join(dir, name)
    const made = (await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now()
    if (!kept.has(path) && Date.now() - made > 10 * 60_000) await rm(path, { force: true })
  }
}

/** A directory without a record that can be read: its maker was killed before it had written one. */
async function removeHalfMade(context: Context): Promise<void> {
  const broken = await brokenIds()
  if (broken.length === 0) return
  await withLock(
    statePaths().lock,
    async () => {
      for (const id of await brokenIds()) {
        await endEnginesHere(machinePaths(id).engine)
        await removeTree(machinePaths(id).dir)
      }
    },
    { timeoutMs: 60_000, signal: context.signal },
  )
}

async function brokenIds(): Promise<string[]> {
  const ids = await machineIds()
  const found = await Promise.all(ids.map(async (id) => ((await isBroken(id)) ? [id] : [])))
  return found.flat()
}

/** What cannot be read at the moment, or not by this user, may be a machine that runs. */
async function isBroken(id: string): Promise<boolean> {
  try {
    return (await loadRecord(id)) === undefined
  } catch (error) {
    return error instanceof NestvmError && error.code === 'BAD_RECORD'
  }
}
