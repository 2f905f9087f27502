import { Command, Option } from 'commander'
import type { Judgement } from '../host/checks/judge.ts'
import type { Facts } from '../host/facts/schema.ts'
import { printJson, type Session, session } from './session.ts'
import { collect, parseCount } from './values.ts'

interface DoctorOptions {
  on?: string
  facts: string[]
  depth: number
  factsOnly?: boolean
  refresh?: boolean
  json?: boolean
}

/** kvm: 0; not at all: 1, where nestvm's own failures are 125; with an emulated outermost level: 3. */
const exitStatuses: Record<Judgement['reach'], number> = { kvm: 0, no: 1, emulated: 3 }

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Tell what a machine can nest, what stands in the way, and how to mend it.')
    .option('--on <machine>', 'a guest, or ssh://[user@]host[:port], to look at (default: this host)')
    .option('--depth <n>', 'judge whether so many levels of guests can be started there', parseCount, 2)
    .addOption(
      new Option('--facts <file>', "judge another machine's facts; repeat it for a chain, outermost first")
        .argParser(collect)
        .default([], 'none')
        .conflicts(['on', 'refresh']),
    )
    .option('--facts-only', 'print the facts as one JSON document, for --facts')
    .option('--refresh', 'try KVM again rather than repeat the answer of this boot')
    .option('--json', 'print JSON')
    .action((options: DoctorOptions) =>
      session(options.json === true || options.factsOnly === true, (own) => diagnose(own, options)),
    )
}

async function diagnose(own: Session, options: DoctorOptions): Promise<number> {
  const chain = options.facts.length > 0 ? await read(options.facts) : await look(own, options)
  if (options.factsOnly) {
    printJson(chain.at(-1))
    return 0
  }
  const { judge } = await import('../host/checks/judge.ts')
  const { neededMiB } = await import('../stack/doctor.ts')
  const { depth } = options
  const judgement = judge(chain, { depth, neededMiB: neededMiB(depth) })
  if (options.json) {
    const machines = judgement.machines.map((machine, index) => ({ ...machine, kvm: chain[index]?.probe }))
    printJson({ ...judgement, machines })
  } else {
    const { doctorText } = await import('./doctor-text.ts')
    const { isTTY, columns = 100 } = process.stdout
    console.log(doctorText(chain, judgement, { color: isTTY && !process.env.NO_COLOR, width: Math.min(columns, 110) }))
  }
  return exitStatuses[judgement.reach]
}

async function look(own: Session, { on = '', refresh }: DoctorOptions): Promise<Facts[]> {
  const { examine } = await import('../stack/doctor.ts')
  const { bundleOn, theBundle } = await import('./bundle.ts')
  const { showStep } = await import('./progress.ts')
  return examine(own.context, {
    ...{ on, refresh, bundle: async (arch) => bundleOn(own, await theBundle(own, { arch }), { on }) },
    onMachine: (name) => showStep(`looking at ${name}`),
  }).finally(() => showStep(''))
}

async function read(paths: string[]): Promise<Facts[]> {
  const { readFacts } = await import('../host/facts/file.ts')
  return Promise.all(paths.map(readFacts))
}
