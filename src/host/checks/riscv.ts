import { type Check, type Finding, levelNames } from './finding.ts'

/** RISC-V: the H extension, in the ISA string of /proc/cpuinfo or KVM's log. Nesting is not in Linux (arch/riscv/kvm). */
export const checkRiscv: Check = (facts) => {
  if (!/^riscv/.test(facts.arch)) return []
  const { here, guest, nested } = levelNames(facts)
  const [isa = ''] = facts.cpu.flags
  const base = isa.split('_')[0] ?? ''
  const available = facts.log?.some((line) => /hypervisor extension available/.test(line))
  if (!available && !base.replace(/^rv\d+/, '').includes('h')) {
    return [
      {
        ...{ id: 'riscv-no-h', severity: 'problem', sure: 'certain', stops: 'guests' },
        seen: `the processor's ISA is ${isa || 'not told'}: without h`,
        means: `${here} cannot run guests on KVM`,
        mend: { advice: "QEMU's emulator has the extension in its default processor" },
      },
    ]
  }
  const unnested: Finding = {
    ...{ id: 'riscv-nested-absent', severity: 'problem', sure: 'reported', stops: 'nesting' },
    seen: `the kernel is ${facts.kernel.release}`,
    means: `KVM on RISC-V does not offer the H extension to ${guest}: there can be no ${nested} on KVM`,
  }
  const means = `${here} can run guests on KVM`
  return [
    { id: 'riscv-h', severity: 'good', sure: 'certain', seen: 'the processor has the H extension', means },
    unnested,
  ]
}
