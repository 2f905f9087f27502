import type { GuestRecord } from '../stack/record.ts'

/** Of one exit of L3. */
export interface Cost {
  /** Of L2, as L1's KVM counts them. */
  exits: number
  /** By the clock of the guests' processor. */
  microseconds: number
}

export interface VmcsResult {
  /** How L1 runs. */
  accel: string
  engine: string
  /** Exits of L3 that were measured with each. */
  count: number
  /** With VMCS shadowing and without. */
  on: Cost
  off: Cost
  /** How many times as much it costs without. */
  ratio: Cost
}

export function vmcsResult(
  { accel, engine }: Pick<GuestRecord, 'accel' | 'engine'>,
  count: number,
  { on, off }: Record<'on' | 'off', Cost>,
): VmcsResult {
  const ratio = { exits: off.exits / on.exits, microseconds: off.microseconds / on.microseconds }
  return { accel, engine, count, on, off, ratio }
}

/** For people. */
export function tableOfVmcs({ count, on, off, ratio }: VmcsResult): string {
  const line = (...cells: string[]) => cells.map((cell, index) => (index === 0 ? cell.padEnd(20) : cell.padStart(14)))
  const row = (what: string, { exits, microseconds }: Cost) => line(what, exits.toFixed(2), microseconds.toFixed(1))
  return [
    line(`of ${count} exits of L3`, 'exits to L1', 'us, their clock'),
    row('with shadowing', on),
    row('without', off),
    row('times as much', ratio),
  ]
    .map((cells) => cells.join(' '))
    .join('\n')
}
