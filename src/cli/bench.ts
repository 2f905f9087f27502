import { Command, Option } from 'commander'
import type { LevelsResult } from '../bench/chain.ts'
import type { Bundle } from '../bundle/bundle.ts'
import { type Arch, arches } from '../host/arch.ts'
import { printJson, type Session, session } from './session.ts'
import { parseCount } from './values.ts'

export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure nestvm on this host.')
    .addCommand(startCommand())
    .addCommand(warmCommand())
    .addCommand(execCommand())
    .addCommand(volumesCommand())
    .addCommand(networkCommand())
    .addCommand(imagesCommand())
    .addCommand(vmcsCommand())
}

function startCommand(): Command {
  return new Command('start')
    .description('Time cold starts against a plain QEMU recipe, at each depth, in one run.')
    .addOption(archOption())
    .option('--depth <n>', 'the deepest level to measure', parseCount, 3)
    .option('--repeat <n>', 'how often each is measured; the median counts', parseCount, 1)
    .option(
      '--kernel-profile <name>',
      "compare this profile's kernel with Debian's, rather than nestvm with the recipe",
    )
    .option('--json', 'print JSON')
    .action((options: LevelsOptions & { repeat: number; kernelProfile?: string }) =>
      benchSession(options, async (own, bundle, print) => {
        if (options.kernelProfile !== undefined) return kernelBench(own, bundle, options, print)
        const { benchStart } = await import('../bench/start.ts')
        return benchStart(own.context, bundle, options, print)
      }),
    )
}

async function kernelBench(
  own: Session,
  debian: Bundle,
  { arch, kernelProfile, ...options }: LevelsOptions & { repeat: number; kernelProfile?: string },
  print: (line: string) => void,
): Promise<unknown> {
  const { guestKernel, theBundle } = await import('./bundle.ts')
  const { benchKernel } = await import('../bench/kernel.ts')
  const kernel = await guestKernel({ arch, kernelProfile })
  return benchKernel(own.context, { debian, own: await theBundle(own, { arch, kernel }) }, options, print)
}

function warmCommand(): Command {
  return new Command('warm')
    .description('Time warm starts against cold ones, and count the memory of guests that share a snapshot.')
    .option('--depth <n>', 'the deepest level to measure', parseCount, 3)
    .option('--repeat <n>', 'how often a warm start is measured', parseCount, 10)
    .option('--clones <n>', 'how many guests are made of one snapshot', parseCount, 10)
    .option('--json', 'print JSON')
    .action((options: { depth: number; repeat: number; clones: number; json?: boolean }) =>
      benchSession(options, async ({ context }, bundle, print) => {
        const { benchWarm } = await import('../bench/warm.ts')
        return benchWarm(context, bundle, options, print)
      }),
    )
}

function execCommand(): Command {
  return new Command('exec')
    .description('Time programs in the guests of one stack of three levels, and the throughput of their output.')
    .addOption(archOption())
    .option('--repeat <n>', 'how often each time is taken; the median counts', parseCount, 20)
    .option('--megabytes <n>', 'what a program writes', parseCount, 100)
    .option('--json', 'print JSON')
    .action((options: { arch?: Arch; repeat: number; megabytes: number; json?: boolean }) =>
      benchSession(options, async ({ context }, bundle, print) => {
        const { benchExec } = await import('../bench/exec.ts')
        const { tableOfExec } = await import('../bench/exec-report.ts')
        const result = await benchExec(context, bundle, options, print)
        print(tableOfExec(result))
        return result
      }),
    )
}

function volumesCommand(): Command {
  return levelsCommand('volumes', 'Time work with files in a volume, at each level of one chain of guests.')
    .option('--repeat <n>', 'how often each is measured; the median counts', parseCount, 1)
    .action((options: LevelsOptions & { repeat: number }) =>
      levelsSession(options, async ({ context }, bundle, print) => {
        const { benchVolumes } = await import('../bench/volumes.ts')
        return benchVolumes(context, bundle, options, print)
      }),
    )
}

function networkCommand(): Command {
  return levelsCommand('network', 'Measure throughput and round trips, at each level of one chain of guests.')
    .option('--megabytes <n>', 'what is sent to measure throughput', parseCount, 16)
    .action((options: LevelsOptions & { megabytes: number }) =>
      levelsSession(options, async ({ context }, bundle, print) => {
        const { benchNetwork } = await import('../bench/network.ts')
        return benchNetwork(context, bundle, options, print)
      }),
    )
}

function imagesCommand(): Command {
  return levelsCommand('images', "Measure reading of an image's disk, at each level of one chain of guests.")
    .option('--megabytes <n>', 'the size of the image', parseCount, 200)
    .action((options: LevelsOptions & { megabytes: number }) =>
      levelsSession(options, async ({ context }, bundle, print) => {
        const { benchImages } = await import('../bench/images.ts')
        return benchImages(context, bundle, options, print)
      }),
    )
}

function vmcsCommand(): Command {
  return new Command('vmcs')
    .description(
      'Count what an exit of L3 costs an Intel L1 with VMCS shadowing and without, as KVM and its clock tell.',
    )
    .option('--count <n>', 'how many exits', parseCount, 1000)
    .option('--json', 'print JSON')
    .action((options: { count: number; json?: boolean }) =>
      benchSession(options, async (own, bundle, print) => {
        const { benchVmcs } = await import('../bench/vmcs.ts')
        const { tableOfVmcs } = await import('../bench/vmcs-report.ts')
        const { theBochs } = await import('./bundle.ts')
        const result = await benchVmcs(own.context, bundle, () => theBochs(own, bundle), options, print)
        print(tableOfVmcs(result))
        return result
      }),
    )
}

interface LevelsOptions {
  arch?: Arch
  depth: number
  json?: boolean
}

function levelsCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .addOption(archOption())
    .option('--depth <n>', 'the deepest level to measure', parseCount, 3)
    .option('--json', 'print JSON')
}

function archOption(): Option {
  return new Option('--arch <arch>', "the guests' architecture (default: this host's)").choices(arches)
}

function levelsSession(
  options: LevelsOptions,
  measure: (own: Session, bundle: Bundle, print: (line: string) => void) => Promise<LevelsResult>,
): Promise<never> {
  return benchSession(options, async (own, bundle, print) => {
    const { tableOfLevels } = await import('../bench/levels-report.ts')
    const result = await measure(own, bundle, print)
    print(tableOfLevels(result.works))
    return result
  })
}

/** What is printed on the way, and the tables, are for people; `--json` prints the result alone. */
function benchSession(
  { arch, json = false }: { arch?: Arch; json?: boolean },
  measure: (own: Session, bundle: Bundle, print: (line: string) => void) => Promise<unknown>,
): Promise<never> {
  return session(json, async (own) => {
    const { theBundle } = await import('./bundle.ts')
    const result = await measure(own, await theBundle(own, { arch }), (line) => {
      if (!json) console.log(line)
    })
    if (json) printJson(result)
    return 0
  })
}
