import type { Accel } from '../engine/architecture.ts'
import { askQemu } from '../engine/qemu/ask.ts'
import {
  checkLacking,
  completed,
  cpuModelText,
  definedModel,
  lacking,
  nearestModel,
  parseCpuModel,
  readOffer,
  switched,
} from '../engine/qemu/cpu-model.ts'
import type { Arch } from '../host/arch.ts'
import type { Machine } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import { answerLimitMs, type LevelPlan } from './plan.ts'

/**
 * The model that a guest is to have so that it can move to other processors: `wanted`, or where that is empty, the
 * nearest to the machine's own. Undefined for an emulated guest of which no model is asked: QEMU emulates the same
 * processor everywhere. Throws `CPU_MODEL_NOT_OFFERED`, `BAD_CPU_MODEL` or `UNSUPPORTED`, all before anything starts.
 */
export async function plannedModel(
  { machine, qemu, signal }: { machine: Machine; qemu: readonly string[]; signal: AbortSignal },
  { arch, accel, nested, under, level }: Pick<LevelPlan, 'arch' | 'accel' | 'nested' | 'under' | 'level'>,
  wanted: string,
): Promise<string | undefined> {
  const asked = wanted === '' ? undefined : parseCpuModel(wanted)
  if (!asked && accel === 'tcg') return undefined
  if (under) throw unsupported('ACRN runs guests with its own processor alone')
  checkArchitecture(arch, accel)
  return askQemu(machine, qemu, accel, { timeoutMs: answerLimitMs(level), signal }, async (qmp) => {
    const offer = await readOffer(qmp, accel)
    const chosen = asked ? definedModel(offer, asked) : await nearestModel(qmp, offer)
    const model = completed(chosen, offer, accel, nested)
    const missing = (await lacking(qmp, offer, model)) ?? []
    if (asked) checkLacking(missing, chosen, offer, machine.name === 'host' ? 'this host' : machine.name)
    return cpuModelText(switched(model, missing, false))
  })
}

function checkArchitecture(arch: Arch, accel: Accel): void {
  if (arch === 'x86_64') return
  throw unsupported(
    accel === 'kvm'
      ? 'KVM on arm64 gives guests the processor of its host alone'
      : 'an emulated arm64 guest has one processor, which is the same everywhere',
  )
}

function unsupported(why: string): NestvmError {
  return new NestvmError('UNSUPPORTED', why, { hint: 'leave out --migratable', exitStatus: 2 })
}
