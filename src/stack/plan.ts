import type { Accel } from '../engine/architecture.ts'
import type { EngineName } from '../engine/capability.ts'
import type { Under } from '../engine/qemu/argv.ts'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'

export interface StackRequest {
  /** Number of levels to start. */
  depth: number
  arch: Arch
  cpus: number
  /** Of the innermost guest. */
  memoryMiB: number
  /** Let the innermost guest be a hypervisor too. */
  nested: boolean
  /** The name of the outermost new guest, and the path of the machine it starts on ('' for a host). */
  name: string
  on: string
  /** The level of that machine: 0 for a host. */
  onLevel: number
  /** Of the outermost new level; deeper ones run on their level's KVM. */
  accel: Accel
  accelReason: string
  /** Of the innermost, and of the outermost new level, where they are not QEMU's. */
  engine?: EngineName
  outermostEngine?: EngineName
  /** What the machine that the outermost new guest starts on runs under, where that limits its guests. */
  under?: Under
  /** Free on the machine that the outermost new guest starts on. */
  availableMiB: number
  /** How messages call that machine where it is not the one that `on` names. */
  where?: string
}

export interface LevelPlan {
  level: number
  path: string
  arch: Arch
  accel: Accel
  accelReason: string
  engine: EngineName
  cpus: number
  memoryMiB: number
  nested: boolean
  /** On KVM there, it keeps to what that hypervisor runs. */
  under?: Under
  /** The named processor that it has, rather than all that there is, as QEMU's -cpu takes it. */
  cpuModel?: string
  /** How long it may take from the engine's start to the ssh server's answer. */
  limitMs: number
}

/**
 * What a guest hypervisor needs besides its guest's memory: its kernel and initramfs, the files of QEMU in its page
 * cache, and QEMU's own heap. Measured: 130 MiB in use with an idle guest of 512 MiB in it.
 */
export const overheadMiB = 320
/** With less, Debian's kernel does not unpack its initramfs. */
export const leastMiB = 96
/** Of a guest on Bochs, whose kernel has all drivers and is loaded beside what unpacks it. */
const leastOnBochsMiB = 256

/** Plans memory from the inside out. Throws `BAD_MEMORY` or `NOT_ENOUGH_MEMORY` before anything starts. */
export function planStack(request: StackRequest): LevelPlan[] {
  if (request.memoryMiB < leastMiB) {
    throw new NestvmError('BAD_MEMORY', `a guest with ${request.memoryMiB} MiB does not boot`, {
      hint: `--memory ${leastMiB}M or more`,
      exitStatus: 2,
    })
  }
  const needed = levelMemory(request, 0)
  if (needed > request.availableMiB) {
    const where = request.where ?? (request.on === '' ? 'this host' : request.on)
    throw new NestvmError(
      'NOT_ENOUGH_MEMORY',
      `${request.depth === 1 ? 'the guest needs' : `${request.depth} levels need`} ${needed} MiB, but ${where} has ${request.availableMiB} MiB free`,
      {
        hint: 'use a smaller --memory or --depth, or stop other guests (nestvm ls)',
        details: { neededMiB: needed, availableMiB: request.availableMiB },
      },
    )
  }
  return Array.from({ length: request.depth }, (_, index) => planLevel(request, index))
}

function levelMemory({ depth, memoryMiB, outermostEngine }: StackRequest, index: number): number {
  const memory = memoryMiB + (depth - 1 - index) * overheadMiB
  return index === 0 && outermostEngine === 'bochs' ? Math.max(memory, leastOnBochsMiB) : memory
}

function planLevel(request: StackRequest, index: number): LevelPlan {
  const inner = request.depth - 1 - index
  const level = request.onLevel + index + 1
  const outermost = index === 0
  return {
    level,
    path: levelPath(request, index),
    arch: request.arch,
    accel: outermost ? request.accel : 'kvm',
    accelReason: outermost ? request.accelReason : `L${level - 1} offers nested KVM`,
    engine: (inner === 0 && request.engine) || (outermost && request.outermostEngine) || 'qemu',
    cpus: request.cpus,
    memoryMiB: levelMemory(request, index),
    nested: inner > 0 || request.nested,
    ...(outermost && request.accel === 'kvm' && request.under && { under: request.under }),
    limitMs: levelLimitMs(level, request.accel) * (request.outermostEngine === 'bochs' ? bochsFactor : 1),
  }
}

/** `name` for the outermost, `name/l2/l3` for what is in it. */
function levelPath({ on, name, onLevel }: StackRequest, index: number): string {
  const inner = Array.from({ length: index }, (_, step) => `l${onLevel + step + 2}`)
  return [on, name, ...inner].filter(Boolean).join('/')
}

/**
 * Some thirty times what was measured: L1, L2 and L3 take 3, 6 and 15 s each under emulation on a quiet machine, and
 * machines are busy.
 */
export function levelLimitMs(level: number, accel: Accel): number {
  const first = accel === 'tcg' ? 90_000 : 60_000
  return Math.min(longestTimerMs, first * (level <= 1 ? 1 : 2 * 3 ** (level - 2)))
}

/** On Bochs L1, L2 and L3 take 15, 15 and 30 s each. */
const bochsFactor = 4

/** Of Node's timers, some 24 days: one that is set longer goes off at once. Level 11 would come to it. */
const longestTimerMs = 2 ** 31 - 1

/** How long a guest that runs may take to answer, on a host that emulates and is busy. */
export function answerLimitMs(level: number): number {
  return Math.round(levelLimitMs(level, 'tcg') / 3)
}
