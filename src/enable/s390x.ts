import { isOn, persistedOptions } from './modprobe.ts'
import { planNesting } from './nesting.ts'
import type { Plan, Request } from './plan.ts'

/**
 * s390x: parameter `nested` of the module kvm, off by default. A host that lets guests nest cannot back them with huge
 * pages: kvm refuses to load with both, so `hpage` is turned off where it is on (Linux, virt/kvm/running-nested-guests).
 */
export function planS390x({ seen, root }: Request): Plan {
  const value =
    (root === '/' ? seen.modules.get('kvm')?.parameters.get('hpage') : undefined) ??
    persistedOptions(seen, 'kvm').get('hpage')
  const hpage = isOn(value) || isOn(persistedOptions(seen, 'kvm').get('hpage'))
  const wanted = { nested: '1', ...(hpage ? { hpage: '0' } : {}) }
  const plan = planNesting('s390x', seen, root, { name: 'kvm', wanted, onByDefault: false })
  const notes = [
    ...plan.notes,
    ...(hpage
      ? ['hpage is turned off: kvm does not load with both nested and hpage; guests are then not backed by huge pages']
      : []),
    ...(root === '/' && !seen.cpuFlags.has('sie')
      ? ['the processor shows no sie: if this is itself a guest, the level above has to give it, with -cpu host']
      : []),
    'guests need the feature sie to be hypervisors: start them with -cpu host',
  ]
  return { ...plan, notes }
}
