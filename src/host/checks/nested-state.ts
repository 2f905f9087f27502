import type { Facts } from '../facts/schema.ts'
import { nestedStateRule, platformOf } from '../rules/judge.ts'
import type { Rule } from '../rules/table.ts'
import { type Finding, levelNames } from './finding.ts'

/** The oldest QEMU that nestvm starts guests with (bundle/own-qemu.ts). */
const oldestQemu = '10.2'

const words: Record<Rule['verdict'], { severity: Finding['severity']; may: string }> = {
  safe: { severity: 'good', may: 'can' },
  untested: { severity: 'note', may: 'should not' },
  lost: { severity: 'warning', may: 'must not' },
}

/** What may be done with a guest of this machine in which guests run, where there can be such: the rule, and its source. */
export function nestedStateFinding(facts: Facts): Finding {
  const { guest, nested } = levelNames(facts)
  const { release } = facts.kernel
  const { id, verdict, sure, why, wayOut, source } = nestedStateRule({
    ...{ platform: platformOf(facts.arch, facts.cpu.vendor), accel: 'kvm', guest: 'nesting' },
    ...{ kernel: release, qemu: oldestQemu, capability: (facts.kvm.capabilities?.nestedState ?? 0) > 0 },
  })
  const { severity, may } = words[verdict]
  const ways = [wayOut, ...(verdict === 'untested' ? ['or --force, of snapshot create and migrate'] : [])]
  return {
    ...{ id: 'nested-state', severity, sure },
    seen: `the kernel is ${release}`,
    means: `${guest} ${may} be saved or moved while it runs ${nested}: ${why} (rule ${id}; ${source})`,
    ...(verdict !== 'safe' && { mend: { advice: ways.join(', ') } }),
  }
}
