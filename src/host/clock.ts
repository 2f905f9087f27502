import type { Machine } from '../machine/machine.ts'
import { readText } from '../machine/read.ts'

/**
 * The rate of an x86 host's time stamp counter in kHz, to some 5 kHz; undefined where it does not tell.
 * QEMU's emulator shows guests this very counter. A guest that measures its rate against an emulated timer on a busy
 * host gets it wrong by a factor of two now and then, or not at all, and then hangs: it has to be told.
 *
 * Where the counter's rate is known, Linux derives loops_per_jiffy, hence BogoMIPS, from it: the rate in MHz times two
 * (arch/x86/kernel/tsc.c).
 */
export async function counterKhz(machine: Machine): Promise<number | undefined> {
  return parseCounterKhz(await readText(machine, '/proc/cpuinfo'))
}

export function parseCounterKhz(cpuinfo: string): number | undefined {
  const bogomips = /^bogomips\s*:\s*([\d.]+)$/m.exec(cpuinfo)?.[1]
  const constant = /^flags\s*:.*\bconstant_tsc\b/m.test(cpuinfo)
  return bogomips !== undefined && constant ? Math.round(Number(bogomips) * 500) : undefined
}
