import type { StartTimes } from '../stack/start.ts'

/** How a start divides, in milliseconds. The parts follow each other without gaps: they add up to the total. */
export interface Division {
  totalMs: number
  /** To choose the accelerator and the memory. */
  planMs: number
  levels: LevelDivision[]
  /** From the innermost ssh server's answer to the first output. */
  commandMs: number
}

export interface LevelDivision {
  level: number
  /** Keys, initramfs, tap device, and QEMU's process; a nested one first waits for its hypervisor's modules. */
  engineMs: number
  /** QEMU makes the devices and loads the kernel, the firmware runs, and the kernel up to where its clock starts. */
  firmwareMs: number
  kernelMs: number
  /** Up to where the ssh server listens. */
  userSpaceMs: number
  /** To connect and log in. */
  sshMs: number
  totalMs: number
}

/** A start's instants, in milliseconds on the clock of performance.now(). */
export interface TimedStart {
  begun: number
  /** Outermost first. */
  guests: readonly { level: number; times: StartTimes; marks: Marks }[]
  /** When the first output came. */
  answered: number
}

/** What a guest tells of its own start. */
export interface Marks {
  /** Seconds on its clock, which starts with its kernel: when user space began, and when its ssh server listened. */
  kernel: number
  user: number
  /** Its clock at an instant, in seconds, and when on ours the news of it had come. */
  uptime: number
  uptimeRead: number
}

export function divide({ begun, guests, answered }: TimedStart): Division {
  const planned = guests[0]?.times.begun ?? begun
  let from = planned
  const levels = guests.map(({ level, times, marks }) => {
    const division = divideLevel(level, from, times, marks)
    from = times.reached
    return division
  })
  return {
    ...{ totalMs: between(begun, answered), planMs: between(begun, planned) },
    ...{ levels, commandMs: between(from, answered) },
  }
}

function divideLevel(level: number, from: number, times: StartTimes, marks: Marks): LevelDivision {
  const { launched, up, reached } = times
  // Both are late by what the news took to come, so the earlier one is the nearer.
  const known = Math.min(up - 1000 * marks.user, marks.uptimeRead - 1000 * marks.uptime)
  const kernelBegun = Math.min(Math.max(known, launched), up)
  const userBegun = Math.min(kernelBegun + 1000 * marks.kernel, up)
  return {
    level,
    engineMs: between(from, launched),
    firmwareMs: between(launched, kernelBegun),
    kernelMs: between(kernelBegun, userBegun),
    userSpaceMs: between(userBegun, up),
    sshMs: between(up, reached),
    totalMs: between(from, reached),
  }
}

/** Instants are rounded rather than spans, so that sums stay exact. */
function between(earlier: number, later: number): number {
  return Math.round(later) - Math.round(earlier)
}
