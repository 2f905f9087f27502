import * as z from 'zod'
import { healthFile } from '../container/health.ts'
import { run } from '../machine/run.ts'
import type { Context } from './context.ts'
import { answerLimitMs } from './plan.ts'
import { type GuestRecord, listRecords } from './record.ts'
import { runs } from './stop.ts'

export type ListedMachine = Omit<GuestRecord, 'phase'> & {
  /** A record's phase, or `dead`: its engine ended without being asked to. */
  phase: GuestRecord['phase'] | 'dead'
  /** Of a container whose image has a health check. */
  health?: 'starting' | 'healthy' | 'unhealthy'
}

/** All machines, with what their engines' processes tell of their state. */
export async function listMachines(context: Context): Promise<ListedMachine[]> {
  const records = await listRecords()
  return Promise.all(
    records.map(async (record) => {
      const alive = record.phase !== 'running' || (await runs(context, record))
      return {
        ...record,
        phase: alive ? record.phase : 'dead',
        health: alive ? await health(context, record) : undefined,
      }
    }),
  )
}

/** A guest that does not answer has none. */
async function health(context: Context, record: GuestRecord): Promise<ListedMachine['health']> {
  if (record.phase !== 'running' || !record.container?.config.healthcheck) return undefined
  try {
    const guest = await context.guest(record)
    const { stdout } = await run(guest, ['cat', healthFile], { timeoutMs: answerLimitMs(record.level) })
    return z.enum(['starting', 'healthy', 'unhealthy']).parse(stdout.trim())
  } catch {
    return undefined
  }
}
