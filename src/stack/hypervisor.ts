import { hypervisorReady } from '../bundle/guest/scripts.ts'
import { architectures } from '../engine/architecture.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { answerLimitMs } from './plan.ts'
import type { GuestRecord } from './record.ts'

type Hypervisor = Pick<GuestRecord, 'arch' | 'level' | 'path'>

/**
 * Throws `NESTED_DISABLED`, with the likely cause, where a guest that was to be a hypervisor came up without KVM. Where
 * KVM is a module, it is known only later: when a guest is started there.
 */
export async function checkHypervisor(guest: Machine, hypervisor: Hypervisor, signal: AbortSignal): Promise<void> {
  if (architectures[hypervisor.arch].nesting === undefined) return
  const timeoutMs = answerLimitMs(hypervisor.level)
  const { exit } = await run(guest, ['test', '-c', '/dev/kvm'], { timeoutMs, signal, allowFailure: true })
  if (exit.code === 0) return
  throw (await nestingRefusal(guest, hypervisor, signal)) ?? new NestvmError('NESTED_DISABLED', 'it has no /dev/kvm')
}

/**
 * Waits until a guest hypervisor has loaded KVM, which it does while its ssh server answers already: what runs in it may
 * want /dev/kvm at once. Whether it has got it is not asked.
 */
export async function untilHypervisor(guest: Machine, { level }: Hypervisor, signal: AbortSignal): Promise<void> {
  const script = `n=0; until [ -e ${hypervisorReady} ] || [ $n -gt 3000 ]; do n=$((n + 1)); usleep 20000; done`
  await run(guest, ['sh', '-c', script], { timeoutMs: answerLimitMs(level), signal })
}

/** Why a guest's KVM does not give its guests what they need to be hypervisors; undefined where its log has no reason. */
export async function nestingRefusal(
  guest: Machine,
  { arch, level, path }: Hypervisor,
  signal: AbortSignal,
): Promise<NestvmError | undefined> {
  const { nesting } = architectures[arch]
  if (nesting === undefined) return undefined
  const { stdout } = await run(guest, ['sh', '-c', nesting.script], { timeoutMs: answerLimitMs(level), signal })
  const refusal = nesting.judge(stdout)
  if (refusal === undefined) return undefined
  return new NestvmError('NESTED_DISABLED', `${path} cannot be a hypervisor: ${refusal.reason}`, {
    hint: refusal.hint,
    details: { machine: path, log: stdout.trim().split('\n').slice(2) },
  })
}
