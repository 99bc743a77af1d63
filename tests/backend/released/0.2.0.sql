BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0015');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	actor VARCHAR(271) NOT NULL, 
	address VARCHAR(64) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	job_id VARCHAR(255), 
	detail TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2026-11-29 23:47:30.835000','own machine','127.0.0.1','register','zeus-job','');
INSERT INTO "audit" VALUES(2,'2026-11-29 23:47:30.861000','own machine','127.0.0.1','ask','zeus-job','trial 1, batch size 16');
INSERT INTO "audit" VALUES(3,'2026-11-29 23:47:30.902000','own machine','127.0.0.1','ask','zeus-job','trial 2, batch size 8');
INSERT INTO "audit" VALUES(4,'2026-11-29 23:47:30.922000','own machine','127.0.0.1','ask','zeus-job','trial 3, batch size 32');
INSERT INTO "audit" VALUES(5,'2026-11-29 23:47:30.940000','own machine','127.0.0.1','ask','zeus-job','trial 4, batch size 8');
INSERT INTO "audit" VALUES(6,'2026-11-29 23:47:30.963000','own machine','127.0.0.1','ask','zeus-job','trial 5, batch size 16');
INSERT INTO "audit" VALUES(7,'2026-11-29 23:47:30.987000','own machine','127.0.0.1','ask','zeus-job','trial 6, batch size 32');
INSERT INTO "audit" VALUES(8,'2026-11-29 23:47:30.995000','own machine','127.0.0.1','end trial','zeus-job','trial 6: out of disk');
INSERT INTO "audit" VALUES(9,'2026-11-29 23:47:31.193000','own machine','127.0.0.1','ask','zeus-job','trial 7, batch size 32');
INSERT INTO "audit" VALUES(10,'2026-11-29 23:47:31.207000','own machine','127.0.0.1','ask','zeus-job','trial 8, batch size 8');
INSERT INTO "audit" VALUES(11,'2026-11-29 23:47:31.219000','own machine','127.0.0.1','ask','zeus-job','trial 9, batch size 8');
INSERT INTO "audit" VALUES(12,'2026-11-29 23:47:31.234000','own machine','127.0.0.1','ask','zeus-job','trial 10, batch size 8');
INSERT INTO "audit" VALUES(13,'2026-11-29 23:47:31.251000','own machine','127.0.0.1','ask','zeus-job','trial 11, batch size 8');
INSERT INTO "audit" VALUES(14,'2026-11-29 23:47:31.279000','own machine','127.0.0.1','ask','zeus-job','trial 12, batch size 8');
INSERT INTO "audit" VALUES(15,'2026-11-29 23:47:31.303000','own machine','127.0.0.1','ask','zeus-job','trial 13, batch size 8');
INSERT INTO "audit" VALUES(16,'2026-11-29 23:47:31.327000','own machine','127.0.0.1','ask','zeus-job','trial 14, batch size 8');
INSERT INTO "audit" VALUES(17,'2026-11-29 23:47:31.355000','own machine','127.0.0.1','ask','zeus-job','trial 15, batch size 8');
INSERT INTO "audit" VALUES(18,'2026-11-29 23:47:31.376000','own machine','127.0.0.1','register','gp-ucb-job','');
INSERT INTO "audit" VALUES(19,'2026-11-29 23:47:31.383000','own machine','127.0.0.1','ask','gp-ucb-job','trial 1, batch size 16');
INSERT INTO "audit" VALUES(20,'2026-11-29 23:47:31.404000','own machine','127.0.0.1','ask','gp-ucb-job','trial 2, batch size 32');
INSERT INTO "audit" VALUES(21,'2026-11-29 23:47:31.431000','own machine','127.0.0.1','ask','gp-ucb-job','trial 3, batch size 8');
INSERT INTO "audit" VALUES(22,'2026-11-29 23:47:31.455000','own machine','127.0.0.1','ask','gp-ucb-job','trial 4, batch size 8');
INSERT INTO "audit" VALUES(23,'2026-11-29 23:47:31.471000','own machine','127.0.0.1','ask','gp-ucb-job','trial 5, batch size 8');
INSERT INTO "audit" VALUES(24,'2026-11-29 23:47:31.487000','own machine','127.0.0.1','ask','gp-ucb-job','trial 6, batch size 8');
INSERT INTO "audit" VALUES(25,'2026-11-29 23:47:31.495000','own machine','127.0.0.1','end trial','gp-ucb-job','trial 6: out of disk');
INSERT INTO "audit" VALUES(26,'2026-11-29 23:47:31.499000','own machine','127.0.0.1','ask','gp-ucb-job','trial 7, batch size 8');
INSERT INTO "audit" VALUES(27,'2026-11-29 23:47:31.519000','own machine','127.0.0.1','ask','gp-ucb-job','trial 8, batch size 8');
INSERT INTO "audit" VALUES(28,'2026-11-29 23:47:31.535000','own machine','127.0.0.1','ask','gp-ucb-job','trial 9, batch size 8');
INSERT INTO "audit" VALUES(29,'2026-11-29 23:47:31.559000','own machine','127.0.0.1','ask','gp-ucb-job','trial 10, batch size 16');
INSERT INTO "audit" VALUES(30,'2026-11-29 23:47:31.591000','own machine','127.0.0.1','ask','gp-ucb-job','trial 11, batch size 16');
INSERT INTO "audit" VALUES(31,'2026-11-29 23:47:31.613000','own machine','127.0.0.1','ask','gp-ucb-job','trial 12, batch size 16');
INSERT INTO "audit" VALUES(32,'2026-11-29 23:47:31.640000','own machine','127.0.0.1','ask','gp-ucb-job','trial 13, batch size 16');
INSERT INTO "audit" VALUES(33,'2026-11-29 23:47:31.659000','own machine','127.0.0.1','ask','gp-ucb-job','trial 14, batch size 16');
INSERT INTO "audit" VALUES(34,'2026-11-29 23:47:31.680000','own machine','127.0.0.1','ask','gp-ucb-job','trial 15, batch size 16');
INSERT INTO "audit" VALUES(35,'2026-11-29 23:47:32.079000','command line','','make user',NULL,'ada, admin');
INSERT INTO "audit" VALUES(36,'2026-11-29 23:47:32.091000','command line','','make token',NULL,'trainers: run, jobs beginning with zeus, never expires');
CREATE TABLE beliefs (
	job INTEGER NOT NULL, 
	exploration INTEGER NOT NULL, 
	told TEXT NOT NULL, 
	PRIMARY KEY (job, exploration), 
	FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "beliefs" VALUES(1,0,'{"digest": "20853dfcd06081b3", "version": 5, "reference_cost_j": 12.1, "last": {"number": 14, "batch_size": 8, "type": "MAB", "status": "Succeeded", "converged": true, "energy_j": 13.3, "time_s": 1.0, "epochs": 2, "started": 38, "ended": 40, "bound_factor": 1.0, "epoch_limit_j": null, "out_of_memory": false}, "rewards": {"16": [2, -14.2, 0.0800000000000005, []], "8": [9, -12.51111111111111, 8.388888888888903, []], "32": [2, -18.4, 0.08000000000000157, []]}, "explored": [[1, 16, "Pruning", "Succeeded", true, 14.0, 1.0, 2, 1, 3, 1.0, null, false], [2, 8, "Pruning", "Succeeded", true, 12.1, 1.0, 2, 4, 6, 1.0, null, false], [3, 32, "Pruning", "Succeeded", true, 18.2, 1.0, 2, 7, 9, 1.0, null, false], [4, 8, "Pruning", "Succeeded", true, 12.3, 1.0, 2, 10, 12, 1.0, null, false], [5, 16, "Pruning", "Succeeded", true, 14.4, 1.0, 2, 13, 15, 1.0, null, false], [7, 32, "Pruning", "Succeeded", true, 18.6, 1.0, 2, 18, 20, 1.0, null, false]], "cheapest": {"number": 2, "batch_size": 8, "type": "Pruning", "status": "Succeeded", "converged": true, "energy_j": 12.1, "time_s": 1.0, "epochs": 2, "started": 4, "ended": 6, "bound_factor": 1.0, "epoch_limit_j": null, "out_of_memory": false}}');
INSERT INTO "beliefs" VALUES(2,0,'{"digest": "5c8962cf9239877e", "version": 5, "reference_cost_j": 13.483870311443095, "last": {"number": 14, "batch_size": 16, "type": "MAB", "status": "Succeeded", "converged": true, "energy_j": 15.3, "time_s": 1.0, "epochs": 2, "started": 38, "ended": 40, "bound_factor": 1.0, "epoch_limit_j": null, "out_of_memory": false}, "counted": {"converged": [5.0, 6.0, 1.0], "failed": [1.0, 0.0, 0.0], "failed_since_success": [0.0, 0.0, 0.0], "priced_out": [0.0, 0.0, 0.0], "failed_factor": 1.0, "changed": null, "paid": 0, "too_large": null}, "epochs": {"runs": [5.0, 6.0, 1.0], "mean": [0.6931471805599453, 0.6931471805599453, 0.6931471805599453], "site_precision": [3.702159858509753, 0.0, 0.0], "site_shift": [2.7250171931049723, 0.0, 0.0], "squares": 0.0, "freedom": 9.0, "rising": 0.0, "falling": 0.0}, "epochs_prior": null, "epoch_cost": {"runs": [6.0, 6.0, 1.0], "mean": [1.9068132807241451, 2.0089047767301182, 2.2027647577118348], "energy_j": [72.2, 89.5, 18.1], "time_s": [6.0, 6.0, 1.0]}}');
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	job_id VARCHAR(255) NOT NULL, 
	spec TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	rng_position TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	exploration INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, warm_start TEXT, probes TEXT, paused BOOLEAN DEFAULT 0 NOT NULL, policy VARCHAR(16) DEFAULT '' NOT NULL, gpu_model VARCHAR(255) DEFAULT '' NOT NULL, breakdowns TEXT, targets TEXT, max_device_batch_size INTEGER, oldest_seen_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (job_id)
);
INSERT INTO "jobs" VALUES(1,'zeus-job','{"job_id":"zeus-job","job_id_prefix":"zeus-job","batch_sizes":[8,16,32],"default_batch_size":16,"eta_knob":1.0,"beta_knob":2.0,"target_metric":1.0,"higher_is_better_metric":true,"calibration_runs":3,"target_tolerance":0.0,"max_epochs":10,"num_pruning_rounds":2,"window_size":0,"mab_prior_mean":0.0,"mab_prior_precision":0.0,"mab_num_explorations":2,"mab_seed":1,"policy":"zeus","warm_start_from":null,"max_power":100.0,"number_of_gpus":1,"gpu_model":"A40"}',1,'{"bit_generator": "PCG64", "state": {"state": 330717710183383115130454150883383691545, "inc": 194290289479364712180083596243593368443}, "has_uint32": 0, "uinteger": 2270273598}',42,0,'2026-11-29 23:47:30.833000',NULL,NULL,0,'zeus','A40',NULL,NULL,NULL,'2026-11-29 23:47:30.833000');
INSERT INTO "jobs" VALUES(2,'gp-ucb-job','{"job_id":"gp-ucb-job","job_id_prefix":"gp-ucb-job","batch_sizes":[8,16,32],"default_batch_size":16,"eta_knob":1.0,"beta_knob":2.0,"target_metric":1.0,"higher_is_better_metric":true,"calibration_runs":3,"target_tolerance":0.0,"max_epochs":10,"num_pruning_rounds":2,"window_size":0,"mab_prior_mean":0.0,"mab_prior_precision":0.0,"mab_num_explorations":2,"mab_seed":1,"policy":"gp-ucb","warm_start_from":null,"max_power":100.0,"number_of_gpus":1,"gpu_model":"A40"}',1,'{"bit_generator": "PCG64", "state": {"state": 207833532711051698738587646355624148094, "inc": 194290289479364712180083596243593368443}, "has_uint32": 0, "uinteger": 0}',42,0,'2026-11-29 23:47:31.376000',NULL,NULL,0,'gp-ucb','A40',NULL,NULL,NULL,'2026-11-29 23:47:31.376000');
CREATE TABLE reports (
	trial INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	metric DOUBLE, 
	energy_j DOUBLE NOT NULL, 
	time_s DOUBLE NOT NULL, 
	code VARCHAR(16) NOT NULL, 
	message TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	expired_revision BIGINT, 
	received_at DATETIME NOT NULL, 
	PRIMARY KEY (trial, number), 
	FOREIGN KEY(trial) REFERENCES trials (id) ON DELETE CASCADE
);
INSERT INTO "reports" VALUES(1,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',2,NULL,'2026-11-29 23:47:30.885000');
INSERT INTO "reports" VALUES(1,2,2,1.0,14.0,1.0,'converged','metric 1 reached the target 1 at a cost of 14 J',3,NULL,'2026-11-29 23:47:30.897000');
INSERT INTO "reports" VALUES(2,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',5,NULL,'2026-11-29 23:47:30.907000');
INSERT INTO "reports" VALUES(2,2,2,1.0,12.1,1.0,'converged','metric 1 reached the target 1 at a cost of 12.1 J',6,NULL,'2026-11-29 23:47:30.919000');
INSERT INTO "reports" VALUES(3,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',8,NULL,'2026-11-29 23:47:30.935000');
INSERT INTO "reports" VALUES(3,2,2,1.0,18.2,1.0,'converged','metric 1 reached the target 1 at a cost of 18.2 J',9,NULL,'2026-11-29 23:47:30.937000');
INSERT INTO "reports" VALUES(4,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',11,NULL,'2026-11-29 23:47:30.947000');
INSERT INTO "reports" VALUES(4,2,2,1.0,12.3,1.0,'converged','metric 1 reached the target 1 at a cost of 12.3 J',12,NULL,'2026-11-29 23:47:30.955000');
INSERT INTO "reports" VALUES(5,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',14,NULL,'2026-11-29 23:47:30.967000');
INSERT INTO "reports" VALUES(5,2,2,1.0,14.4,1.0,'converged','metric 1 reached the target 1 at a cost of 14.4 J',15,NULL,'2026-11-29 23:47:30.969000');
INSERT INTO "reports" VALUES(7,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',19,NULL,'2026-11-29 23:47:31.197000');
INSERT INTO "reports" VALUES(7,2,2,1.0,18.6,1.0,'converged','metric 1 reached the target 1 at a cost of 18.6 J',20,NULL,'2026-11-29 23:47:31.199000');
INSERT INTO "reports" VALUES(8,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',22,NULL,'2026-11-29 23:47:31.211000');
INSERT INTO "reports" VALUES(8,2,2,1.0,12.7,1.0,'converged','metric 1 reached the target 1 at a cost of 12.7 J',23,NULL,'2026-11-29 23:47:31.215000');
INSERT INTO "reports" VALUES(9,1,1,NULL,10.0,1.0,'diverged','the metric is not a finite number: the run has diverged; batch size 8 may be dispatched again',25,NULL,'2026-11-29 23:47:31.227000');
INSERT INTO "reports" VALUES(10,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',27,NULL,'2026-11-29 23:47:31.239000');
INSERT INTO "reports" VALUES(10,2,2,1.0,12.9,1.0,'converged','metric 1 reached the target 1 at a cost of 12.9 J',28,NULL,'2026-11-29 23:47:31.243000');
INSERT INTO "reports" VALUES(11,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',30,NULL,'2026-11-29 23:47:31.260000');
INSERT INTO "reports" VALUES(11,2,2,1.0,13.0,1.0,'converged','metric 1 reached the target 1 at a cost of 13 J',31,NULL,'2026-11-29 23:47:31.269000');
INSERT INTO "reports" VALUES(12,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',33,NULL,'2026-11-29 23:47:31.287000');
INSERT INTO "reports" VALUES(12,2,2,1.0,13.1,1.0,'converged','metric 1 reached the target 1 at a cost of 13.1 J',34,NULL,'2026-11-29 23:47:31.294000');
INSERT INTO "reports" VALUES(13,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',36,NULL,'2026-11-29 23:47:31.311000');
INSERT INTO "reports" VALUES(13,2,2,1.0,13.2,1.0,'converged','metric 1 reached the target 1 at a cost of 13.2 J',37,NULL,'2026-11-29 23:47:31.315000');
INSERT INTO "reports" VALUES(14,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',39,NULL,'2026-11-29 23:47:31.340000');
INSERT INTO "reports" VALUES(14,2,2,1.0,13.3,1.0,'converged','metric 1 reached the target 1 at a cost of 13.3 J',40,NULL,'2026-11-29 23:47:31.344000');
INSERT INTO "reports" VALUES(15,1,1,0.1,1.0,0.1,'continue','the target 1 is not reached yet; training continues',42,NULL,'2026-11-29 23:47:31.370000');
INSERT INTO "reports" VALUES(16,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',2,NULL,'2026-11-29 23:47:31.389000');
INSERT INTO "reports" VALUES(16,2,2,1.0,14.0,1.0,'converged','metric 1 reached the target 1 at a cost of 14 J',3,NULL,'2026-11-29 23:47:31.399000');
INSERT INTO "reports" VALUES(17,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',5,NULL,'2026-11-29 23:47:31.413000');
INSERT INTO "reports" VALUES(17,2,2,1.0,18.1,1.0,'converged','metric 1 reached the target 1 at a cost of 18.1 J',6,NULL,'2026-11-29 23:47:31.419000');
INSERT INTO "reports" VALUES(18,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',8,NULL,'2026-11-29 23:47:31.437000');
INSERT INTO "reports" VALUES(18,2,2,1.0,12.2,1.0,'converged','metric 1 reached the target 1 at a cost of 12.2 J',9,NULL,'2026-11-29 23:47:31.444000');
INSERT INTO "reports" VALUES(19,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',11,NULL,'2026-11-29 23:47:31.463000');
INSERT INTO "reports" VALUES(19,2,2,1.0,12.3,1.0,'converged','metric 1 reached the target 1 at a cost of 12.3 J',12,NULL,'2026-11-29 23:47:31.467000');
INSERT INTO "reports" VALUES(20,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',14,NULL,'2026-11-29 23:47:31.477000');
INSERT INTO "reports" VALUES(20,2,2,1.0,12.4,1.0,'converged','metric 1 reached the target 1 at a cost of 12.4 J',15,NULL,'2026-11-29 23:47:31.483000');
INSERT INTO "reports" VALUES(22,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',19,NULL,'2026-11-29 23:47:31.507000');
INSERT INTO "reports" VALUES(22,2,2,1.0,12.6,1.0,'converged','metric 1 reached the target 1 at a cost of 12.6 J',20,NULL,'2026-11-29 23:47:31.511000');
INSERT INTO "reports" VALUES(23,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',22,NULL,'2026-11-29 23:47:31.523000');
INSERT INTO "reports" VALUES(23,2,2,1.0,12.7,1.0,'converged','metric 1 reached the target 1 at a cost of 12.7 J',23,NULL,'2026-11-29 23:47:31.531000');
INSERT INTO "reports" VALUES(24,1,1,NULL,10.0,1.0,'diverged','the metric is not a finite number: the run has diverged; batch size 8 has converged before in this job, so it may be dispatched again',25,NULL,'2026-11-29 23:47:31.544000');
INSERT INTO "reports" VALUES(25,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',27,NULL,'2026-11-29 23:47:31.570000');
INSERT INTO "reports" VALUES(25,2,2,1.0,14.9,1.0,'converged','metric 1 reached the target 1 at a cost of 14.9 J',28,NULL,'2026-11-29 23:47:31.575000');
INSERT INTO "reports" VALUES(26,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',30,NULL,'2026-11-29 23:47:31.599000');
INSERT INTO "reports" VALUES(26,2,2,1.0,15.0,1.0,'converged','metric 1 reached the target 1 at a cost of 15 J',31,NULL,'2026-11-29 23:47:31.607000');
INSERT INTO "reports" VALUES(27,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',33,NULL,'2026-11-29 23:47:31.620000');
INSERT INTO "reports" VALUES(27,2,2,1.0,15.1,1.0,'converged','metric 1 reached the target 1 at a cost of 15.1 J',34,NULL,'2026-11-29 23:47:31.631000');
INSERT INTO "reports" VALUES(28,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',36,NULL,'2026-11-29 23:47:31.645000');
INSERT INTO "reports" VALUES(28,2,2,1.0,15.2,1.0,'converged','metric 1 reached the target 1 at a cost of 15.2 J',37,NULL,'2026-11-29 23:47:31.648000');
INSERT INTO "reports" VALUES(29,1,1,0.2,3.0,0.5,'continue','the target 1 is not reached yet; training continues',39,NULL,'2026-11-29 23:47:31.668000');
INSERT INTO "reports" VALUES(29,2,2,1.0,15.3,1.0,'converged','metric 1 reached the target 1 at a cost of 15.3 J',40,NULL,'2026-11-29 23:47:31.671000');
INSERT INTO "reports" VALUES(30,1,1,0.1,1.0,0.1,'continue','the target 1 is not reached yet; training continues',42,NULL,'2026-11-29 23:47:31.685000');
CREATE TABLE secrets (
	name VARCHAR(32) NOT NULL, 
	value VARCHAR(255) NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "secrets" VALUES('session key','NhAFW2ZDoQzrMAaby4B8lh6wJSpY9J6aNi8Gd2MX3P8juRdsZbZWffUG7fEcObi0');
CREATE TABLE tokens (
	id INTEGER NOT NULL, 
	label VARCHAR(255) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	scope VARCHAR(16) NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, job_id_prefix VARCHAR(255), 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);
INSERT INTO "tokens" VALUES(1,'trainers','db20e23bffbb04b5e02ccb7923686f4fe3aeb4f7b69dd691e44b5090cab3907b','run','2026-11-29 23:47:32.088000',NULL,NULL,'zeus');
CREATE TABLE trials (
	id INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	run_id VARCHAR(64), 
	exploration INTEGER NOT NULL, 
	batch_size INTEGER NOT NULL, 
	type VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	outcome_code VARCHAR(16), 
	outcome TEXT, 
	converged BOOLEAN, 
	energy_j DOUBLE NOT NULL, 
	time_s DOUBLE NOT NULL, 
	epochs INTEGER NOT NULL, 
	energy_source VARCHAR(16), 
	started_revision BIGINT NOT NULL, 
	ended_revision BIGINT, 
	started_at DATETIME NOT NULL, 
	last_seen_at DATETIME NOT NULL, 
	ended_at DATETIME, bound_factor DOUBLE, accumulate_grad_batches INTEGER DEFAULT '1' NOT NULL, host VARCHAR(255), process VARCHAR(255), best_metric DOUBLE, energy_after_j DOUBLE DEFAULT '0' NOT NULL, time_after_s DOUBLE DEFAULT '0' NOT NULL, epoch_limit_j DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (job, number), 
	UNIQUE (job, run_id), 
	FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "trials" VALUES(1,1,1,NULL,0,16,'Pruning','pruning round 1 of 2: the round''s default batch size','Succeeded','converged','metric 1 reached the target 1 at a cost of 14 J',1,14.0,1.0,2,NULL,1,3,'2026-11-29 23:47:30.861000','2026-11-29 23:47:30.897000','2026-11-29 23:47:30.897000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(2,1,2,NULL,0,8,'Pruning','pruning round 1 of 2: downwards from 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.1 J',1,12.1,1.0,2,NULL,4,6,'2026-11-29 23:47:30.902000','2026-11-29 23:47:30.919000','2026-11-29 23:47:30.919000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(3,1,3,NULL,0,32,'Pruning','pruning round 1 of 2: upwards from 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 18.2 J',1,18.2,1.0,2,NULL,7,9,'2026-11-29 23:47:30.922000','2026-11-29 23:47:30.937000','2026-11-29 23:47:30.937000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(4,1,4,NULL,0,8,'Pruning','pruning round 2 of 2: the round''s default batch size','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.3 J',1,12.3,1.0,2,NULL,10,12,'2026-11-29 23:47:30.940000','2026-11-29 23:47:30.955000','2026-11-29 23:47:30.955000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(5,1,5,NULL,0,16,'Pruning','pruning round 2 of 2: upwards from 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.4 J',1,14.4,1.0,2,NULL,13,15,'2026-11-29 23:47:30.963000','2026-11-29 23:47:30.969000','2026-11-29 23:47:30.969000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(6,1,6,NULL,0,32,'Pruning','pruning round 2 of 2: upwards from 8','Failed','ended','out of disk',NULL,0.0,0.0,0,NULL,16,17,'2026-11-29 23:47:30.987000','2026-11-29 23:47:30.995000','2026-11-29 23:47:30.995000',1.0,1,NULL,NULL,NULL,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(7,1,7,NULL,0,32,'Pruning','pruning round 2 of 2: upwards from 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 18.6 J',1,18.6,1.0,2,NULL,18,20,'2026-11-29 23:47:31.193000','2026-11-29 23:47:31.199000','2026-11-29 23:47:31.199000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(8,1,8,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 12.1766 J (expected 12.2 J, standard deviation 0.0707 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.7 J',1,12.7,1.0,2,NULL,21,23,'2026-11-29 23:47:31.207000','2026-11-29 23:47:31.215000','2026-11-29 23:47:31.215000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(9,1,9,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 12.283 J (expected 12.3667 J, standard deviation 0.144 J)','Succeeded','diverged','the metric is not a finite number: the run has diverged; batch size 8 may be dispatched again',0,10.0,1.0,1,NULL,24,25,'2026-11-29 23:47:31.219000','2026-11-29 23:47:31.227000','2026-11-29 23:47:31.227000',1.0,1,NULL,NULL,NULL,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(10,1,10,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 12.1607 J (expected 11.775 J, standard deviation 0.524 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.9 J',1,12.9,1.0,2,NULL,26,28,'2026-11-29 23:47:31.234000','2026-11-29 23:47:31.243000','2026-11-29 23:47:31.243000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(11,1,11,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 12.1359 J (expected 12 J, standard deviation 0.465 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 13 J',1,13.0,1.0,2,NULL,29,31,'2026-11-29 23:47:31.251000','2026-11-29 23:47:31.269000','2026-11-29 23:47:31.269000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(12,1,12,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 11.6282 J (expected 12.1667 J, standard deviation 0.416 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 13.1 J',1,13.1,1.0,2,NULL,32,34,'2026-11-29 23:47:31.279000','2026-11-29 23:47:31.294000','2026-11-29 23:47:31.294000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(13,1,13,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 12.4593 J (expected 12.3 J, standard deviation 0.377 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 13.2 J',1,13.2,1.0,2,NULL,35,37,'2026-11-29 23:47:31.303000','2026-11-29 23:47:31.315000','2026-11-29 23:47:31.315000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(14,1,14,NULL,0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 12.5434 J (expected 12.4125 J, standard deviation 0.347 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 13.3 J',1,13.3,1.0,2,NULL,38,40,'2026-11-29 23:47:31.327000','2026-11-29 23:47:31.344000','2026-11-29 23:47:31.344000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(15,1,15,'running',0,8,'MAB','bandit: batch size 8 drew the lowest of 3 sampled costs, 13.0415 J (expected 12.5111 J, standard deviation 0.322 J)','Dispatched',NULL,NULL,NULL,1.0,0.1,1,NULL,41,NULL,'2026-11-29 23:47:31.355000','2026-11-29 23:47:31.370000',NULL,1.0,1,NULL,NULL,0.1,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(16,2,1,NULL,0,16,'MAB','no run has ended yet: the default batch size','Succeeded','converged','metric 1 reached the target 1 at a cost of 14 J',1,14.0,1.0,2,NULL,1,3,'2026-11-29 23:47:31.383000','2026-11-29 23:47:31.399000','2026-11-29 23:47:31.399000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(17,2,2,NULL,0,32,'MAB','not tried yet, next to 16; expected 12.09 J ± 3.8 J; the best so far is 14.33 J at 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 18.1 J',1,18.1,1.0,2,NULL,4,6,'2026-11-29 23:47:31.404000','2026-11-29 23:47:31.419000','2026-11-29 23:47:31.419000',1.0,1,NULL,NULL,1.0,0.0,0.0,1.26926758616774453263e+01);
INSERT INTO "trials" VALUES(18,2,3,NULL,0,8,'MAB','not tried yet, next to 16; expected 10.65 J ± 2.87 J; the best so far is 13.82 J at 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.2 J',1,12.2,1.0,2,NULL,7,9,'2026-11-29 23:47:31.431000','2026-11-29 23:47:31.444000','2026-11-29 23:47:31.444000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(19,2,4,NULL,0,8,'MAB','the best so far; expected 12.06 J ± 1.57 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.3 J',1,12.3,1.0,2,NULL,10,12,'2026-11-29 23:47:31.455000','2026-11-29 23:47:31.467000','2026-11-29 23:47:31.467000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(20,2,5,NULL,0,8,'MAB','the best so far; expected 12.23 J ± 1.09 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.4 J',1,12.4,1.0,2,NULL,13,15,'2026-11-29 23:47:31.471000','2026-11-29 23:47:31.483000','2026-11-29 23:47:31.483000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(21,2,6,NULL,0,8,'MAB','the best so far; expected 12.31 J ± 0.837 J','Failed','ended','out of disk',NULL,0.0,0.0,0,NULL,16,17,'2026-11-29 23:47:31.487000','2026-11-29 23:47:31.495000','2026-11-29 23:47:31.495000',1.0,1,NULL,NULL,NULL,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(22,2,7,NULL,0,8,'MAB','the best so far; expected 12.31 J ± 0.837 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.6 J',1,12.6,1.0,2,NULL,18,20,'2026-11-29 23:47:31.499000','2026-11-29 23:47:31.511000','2026-11-29 23:47:31.511000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(23,2,8,NULL,0,8,'MAB','the best so far; expected 12.4 J ± 0.685 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.7 J',1,12.7,1.0,2,NULL,21,23,'2026-11-29 23:47:31.519000','2026-11-29 23:47:31.531000','2026-11-29 23:47:31.531000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(24,2,9,NULL,0,8,'MAB','the best so far; expected 12.47 J ± 0.581 J','Succeeded','diverged','the metric is not a finite number: the run has diverged; batch size 8 has converged before in this job, so it may be dispatched again',0,10.0,1.0,1,NULL,24,25,'2026-11-29 23:47:31.535000','2026-11-29 23:47:31.544000','2026-11-29 23:47:31.544000',1.0,1,NULL,NULL,NULL,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(25,2,10,NULL,0,16,'MAB','expected 14.3 J ± 0.969 J; the best so far is 13.5 J at 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.9 J',1,14.9,1.0,2,NULL,26,28,'2026-11-29 23:47:31.559000','2026-11-29 23:47:31.575000','2026-11-29 23:47:31.575000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(26,2,11,NULL,0,16,'MAB','expected 14.62 J ± 0.8 J; the best so far is 13.49 J at 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 15 J',1,15.0,1.0,2,NULL,29,31,'2026-11-29 23:47:31.591000','2026-11-29 23:47:31.607000','2026-11-29 23:47:31.607000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(27,2,12,NULL,0,16,'MAB','expected 14.76 J ± 0.68 J; the best so far is 13.49 J at 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 15.1 J',1,15.1,1.0,2,NULL,32,34,'2026-11-29 23:47:31.613000','2026-11-29 23:47:31.631000','2026-11-29 23:47:31.631000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(28,2,13,NULL,0,16,'MAB','expected 14.85 J ± 0.592 J; the best so far is 13.49 J at 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 15.2 J',1,15.2,1.0,2,NULL,35,37,'2026-11-29 23:47:31.640000','2026-11-29 23:47:31.648000','2026-11-29 23:47:31.648000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(29,2,14,NULL,0,16,'MAB','expected 14.93 J ± 0.525 J; the best so far is 13.49 J at 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 15.3 J',1,15.3,1.0,2,NULL,38,40,'2026-11-29 23:47:31.659000','2026-11-29 23:47:31.671000','2026-11-29 23:47:31.671000',1.0,1,NULL,NULL,1.0,0.0,0.0,NULL);
INSERT INTO "trials" VALUES(30,2,15,'running',0,16,'MAB','expected 14.99 J ± 0.472 J; the best so far is 13.48 J at 8','Dispatched',NULL,NULL,NULL,1.0,0.1,1,NULL,41,NULL,'2026-11-29 23:47:31.680000','2026-11-29 23:47:31.685000',NULL,1.0,1,NULL,NULL,0.1,0.0,0.0,NULL);
CREATE TABLE users (
	id INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	password_hash VARCHAR(255) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	sessions INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	disabled_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "users" VALUES(1,'ada','scrypt:32768:8:1$fUOnVq3MeXdH1PrJ$80f18eb07a8854d7102e74eff2cc25105595c5df3d367d6a043c5751b9537ebfdd29a28dc816ed07abaa04d68eef6ac4351f2043001dcd7300f003ae8a8538d0','admin',0,'2026-11-29 23:47:32.079000',NULL);
CREATE INDEX ix_jobs_created_at ON jobs (created_at);
CREATE INDEX ix_trials_progress ON trials (job, status, exploration, ended_revision, batch_size, epochs);
CREATE INDEX ix_audit_at ON audit (at);
CREATE INDEX ix_audit_actor ON audit (actor);
CREATE INDEX ix_audit_job_id ON audit (job_id);
CREATE INDEX ix_audit_action ON audit (action, at);
CREATE INDEX ix_trials_seen ON trials (status, last_seen_at);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
COMMIT;
