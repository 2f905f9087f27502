import { isHostUrl } from '../machine/ssh-settings.ts'
import { thisHost } from '../stack/host.ts'
import { descendants, type GuestRecord, lineage, listRecords } from '../stack/record.ts'
import { NestvmError } from '../store/error.ts'

/** A machine that a report is to tell of. */
export interface Level {
  /** 0 for a host. */
  level: number
  /** As nestvm names it: `host`, `ssh://me@server`, `outer/inner`. */
  machine: string
  /** Absent for a host. */
  record?: GuestRecord
}

/**
 * Hosts first, then guests, outer before inner: of the machines named, with all that they run in and all that runs in
 * them; all of this user's where none is named. Throws `NO_SUCH_MACHINE`.
 */
export async function levelsOf(machines: readonly string[]): Promise<Level[]> {
  const records = await listRecords()
  const wanted = machines.length === 0 ? records : machines.flatMap((machine) => around(machine, records))
  const hosts = new Set([
    ...(machines.length === 0 ? [thisHost] : machines.filter(isHost)),
    ...wanted.map(({ host }) => host),
  ])
  return [
    ...[...hosts].map((machine) => ({ level: 0, machine })),
    ...records
      .filter((record) => wanted.includes(record))
      .map((record) => ({ level: record.level, machine: record.path, record })),
  ]
}

const isHost = (machine: string) => machine === thisHost || isHostUrl(machine)

function around(machine: string, records: readonly GuestRecord[]): GuestRecord[] {
  if (isHost(machine)) return records.filter(({ host }) => host === machine)
  const named = records.find(({ path }) => path === machine)
  if (named) return [...lineage(named, records), ...descendants(named, records)]
  throw new NestvmError('NO_SUCH_MACHINE', `there is no machine ${machine}`, {
    hint: 'nestvm ls --all',
    details: { machine, machines: records.map(({ path }) => path) },
  })
}
