import type { Facts } from '../facts/schema.ts'
import { type Check, type Finding, levelNames } from './finding.ts'
import { runsUnder } from './hypervisor.ts'
import { bootArgument } from './mend.ts'

/** What concerns every platform: what the machine runs under, its clock, and huge pages. */
export const checkMachine: Check = (facts) => [...place(facts), ...clock(facts), ...hugePages(facts), ...tools(facts)]

function place(facts: Facts): Finding[] {
  const under = runsUnder(facts)
  const { here } = levelNames(facts)
  if (facts.level > 0 || !under) return []
  const seen = `this machine is a guest of ${under.name}`
  const means = `what is called ${here} here is itself a level: each exit of its guests costs it several`
  return [{ id: 'machine-is-guest', severity: 'note', sure: 'certain', seen, means }]
}

/** Reading such a clock is port or memory I/O: an exit at each level. */
function clock(facts: Facts): Finding[] {
  if (!['hpet', 'acpi_pm', 'refined-jiffies'].includes(facts.clock ?? '')) return []
  const { here } = levelNames(facts)
  return [
    {
      ...{ id: 'machine-slow-clock', severity: 'warning', sure: 'certain' },
      seen: `the kernel's clock is ${facts.clock}`,
      means: `each look at the clock on ${here} is device I/O, and for a guest an exit`,
      mend: { advice: 'the time stamp counter was found unstable: see dmesg | grep -i tsc' },
    },
  ]
}

function hugePages({ memory, arch, level }: Facts): Finding[] {
  if (memory.transparentHugePages !== 'never' || arch === 's390x' || level > 0) return []
  return [
    {
      ...{ id: 'machine-no-huge-pages', severity: 'note', sure: 'certain' },
      seen: 'transparent huge pages are off',
      means: 'each level walks page tables of 4 KiB pages: a miss costs up to 24 memory accesses at L1, more below',
      mend: {
        now: ['echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled'],
        lasting: bootArgument('transparent_hugepage=madvise'),
      },
    },
  ]
}

function tools({ qemu }: Facts): Finding[] {
  return qemu
    .filter(({ path }) => path.includes('x86_64'))
    .map(({ path, version }) => ({
      ...({ id: 'machine-qemu', severity: 'note', sure: 'certain' } as const),
      seen: `${path} is QEMU ${version}`,
      means: 'nestvm uses its own unless --qemu or NESTVM_QEMU names another, of 10.2 or newer',
    }))
}
