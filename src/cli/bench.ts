import { Command } from 'commander'
import { printJson, session } from './session.ts'
import { parseCount } from './values.ts'

export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure nestvm on this host.')
    .addCommand(startCommand())
    .addCommand(execCommand())
}

function startCommand(): Command {
  return new Command('start')
    .description('Time cold starts against a plain QEMU recipe, at depth 1, 2 and 3, in one run.')
    .option('--depth <n>', 'the deepest level to measure', parseCount, 3)
    .option('--repeat <n>', 'how often each is measured; the median counts', parseCount, 1)
    .option('--json', 'print JSON')
    .action((options: { depth: number; repeat: number; json?: boolean }) =>
      session(options.json === true, async (own) => {
        const { theBundle } = await import('./bundle.ts')
        const { benchStart } = await import('../bench/start.ts')
        const result = await benchStart(own.context, await theBundle(own), options, (line) => {
          if (!options.json) console.log(line)
        })
        if (options.json) printJson(result)
        return 0
      }),
    )
}

function execCommand(): Command {
  return new Command('exec')
    .description('Time programs in the guests of one stack of three levels, and the throughput of their output.')
    .option('--repeat <n>', 'how often each time is taken; the median counts', parseCount, 20)
    .option('--megabytes <n>', 'what a program writes', parseCount, 100)
    .option('--json', 'print JSON')
    .action((options: { repeat: number; megabytes: number; json?: boolean }) =>
      session(options.json === true, async (own) => {
        const { theBundle } = await import('./bundle.ts')
        const { benchExec } = await import('../bench/exec.ts')
        const { tableOfExec } = await import('../bench/exec-report.ts')
        const result = await benchExec(own.context, await theBundle(own), options, (line) => {
          if (!options.json) console.log(line)
        })
        if (options.json) printJson(result)
        else console.log(tableOfExec(result))
        return 0
      }),
    )
}
