import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { errorCode } from './errno.ts'

export const processIdentitySchema = z.object({
  pid: z.int().positive(),
  /** Clock ticks after boot: field 22 of /proc/PID/stat. Tells a process from a later one with the same id. */
  startTime: z.int().nonnegative(),
  /** The kernel's boot id: after a reboot, the same id and start time may come again. */
  boot: z.string(),
})

export type ProcessIdentity = z.infer<typeof processIdentitySchema>

/** Names a process for good, so that a later command can ask whether it still runs; undefined when it does not. */
export function processIdentity(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid)
  if (stat === undefined || stat.dead) return undefined
  return { pid, startTime: stat.startTime, boot: bootId() }
}

export function isAlive(identity: ProcessIdentity): boolean {
  const now = processIdentity(identity.pid)
  return now?.startTime === identity.startTime && now.boot === identity.boot
}

/** Of the host. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

function readStat(pid: number) {
  let line: string
  try {
    line = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch (error) {
    // ESRCH: it ended while its file was being read.
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ESRCH') return undefined
    throw error
  }
  // Field 2 is the name in parentheses and may itself hold spaces and parentheses: count from its end.
  const [state = '', ...fields] = line.slice(line.lastIndexOf(')') + 2).split(' ')
  // A zombie has ended; only its parent has not asked yet.
  return { dead: 'ZXx'.includes(state), startTime: Number(fields[22 - 4]) }
}
