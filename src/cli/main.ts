import { version } from '../store/version.ts'
import { runCompiled } from './compiled.ts'

const [argument, ...more] = process.argv.slice(2)
// Scripts ask often, and what reads the command line takes longer to load than Node.js itself to start.
if ((argument === '--version' || argument === '-V') && more.length === 0) console.log(version)
else runCompiled(`${import.meta.dirname}/program.cjs`, argument)
