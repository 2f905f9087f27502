import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { withLock } from '../store/lock.ts'
import { machinePaths, statePaths } from '../store/paths.ts'
import { isAlive } from '../store/process.ts'
import { removeLeftovers, removeTree } from '../store/write.ts'
import type { Context } from './context.ts'
import { readExitStatus } from './output.ts'
import { type GuestRecord, listRecords, loadRecord, machineIds, saveRecord } from './record.ts'
import { destroy, killEngines } from './stop.ts'

/**
 * Cleans up after commands that were killed and guests that ended by themselves. Every command that looks at
 * machines calls it first; with nothing to do it reads a few small files.
 */
export async function reap(context: Context): Promise<void> {
  await removeHalfMade(context)
  const records = await listRecords()
  await removeStrayDisks(records)
  for (const record of records) {
    if (record.owner && !isAlive(record.owner)) await destroyOwned(context, record)
    else if (record.parent === undefined && record.phase === 'running') await noteEnd(context, record, records)
  }
}

/** The owner may have let go of the guest just before it ended; once it is dead it cannot any more. */
async function destroyOwned(context: Context, record: GuestRecord): Promise<void> {
  const now = await loadRecord(record.id).catch(() => undefined)
  if (now?.owner && !isAlive(now.owner)) await destroy(context, now)
}

/** A disk is made shortly before the record that names it. */
async function removeStrayDisks(records: readonly GuestRecord[]): Promise<void> {
  const dir = statePaths().disks
  const kept = new Set(records.map(({ scratch }) => scratch))
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
        await killEngines(machinePaths(id).engine)
        await removeTree(machinePaths(id).dir)
      }
      await removeLeftovers(statePaths().machines)
    },
    { timeoutMs: 60_000, signal: context.signal },
  )
}

async function brokenIds(): Promise<string[]> {
  const ids = await machineIds()
  const found = await Promise.all(ids.map(async (id) => ((await loadRecord(id).catch(() => undefined)) ? [] : [id])))
  return found.flat()
}

/**
 * A detached level 1 guest whose engine has ended: with a command it keeps its output until `rm`;
 * what ran in it is gone.
 */
async function noteEnd(context: Context, record: GuestRecord, records: readonly GuestRecord[]): Promise<void> {
  if (record.owner || !record.engineProcess || isAlive(record.engineProcess)) return
  const stack = records.filter((other) => other.stack === record.stack)
  const command = stack.find((other) => other.command)?.command
  for (const guest of records) if (guest.base === record.id && guest !== record) await destroy(context, guest)
  const exitStatus = await readExitStatus(record)
  await saveRecord({ ...record, phase: 'exited', command, exitStatus })
}
